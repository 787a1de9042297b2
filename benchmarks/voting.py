"""What a vote costs: CPU and memory of `consistency.agreement` over a table of answers, beside polars.

    make bench-voting                                     # five minutes of one core
    python benchmarks/voting.py --rows 80000 --rounds 1 --out /tmp/try.json

A table holds eight answers a prompt, in nine ways to write a number. Both read it, make one form of what is one number,
vote, and write a row an answer, in the order of ids: its share and six quantities. Ten times the rows lie in ten parts.
A process a measurement; its CPU is counted from when its imports are there, its memory from its start.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median

from gateway import commit, goal, machine

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "voting.json"
SAMPLES, PARTS = 8, 10
FORMS = ["{0}", "{0}.", "${0}$", " {0}", "{0}.0", "\\text{{{0}}}", "{1}", "\\boxed{{{0}}}", "The answer is {0}"]
OFTEN = [0.46, 0.1, 0.1, 0.05, 0.05, 0.05, 0.11, 0.05, 0.03]


def make_part(folder: Path, part: int, rows: int) -> None:
    """Answers to prompts of which some are easy and some are not; a wrong answer is near the right one, or any."""
    import numpy as np
    import pyarrow as pa

    from pipeline.contracts import RESPONSES
    from pipeline.tables import ids, parquet

    draw = np.random.default_rng(part)
    prompts = rows // SAMPLES
    right = draw.integers(0, 5000, (prompts, 1))
    solved = draw.random((prompts, SAMPLES)) < draw.beta(2, 1.5, (prompts, 1))
    near, any_ = right + draw.integers(1, 6, solved.shape), draw.integers(0, 5000, solved.shape)
    said = np.where(solved, right, np.where(draw.random(solved.shape) < 0.5, near, any_)).ravel().tolist()
    forms = draw.choice(len(FORMS), len(said), p=OFTEN).tolist()
    asked = pa.array([ids.digest("prompt", part, i) for i in range(prompts)])
    given = {
        "response_id": pa.array([ids.digest("response", part, i) for i in range(len(said))]),
        "prompt_id": asked.take(pa.array(np.repeat(np.arange(prompts), SAMPLES))),
        "answer": pa.array([FORMS[form].format(n, f"{n:,}") for form, n in zip(forms, said, strict=True)]),
    }
    same = {"messages": [{"role": "user", "content": "?"}], "finish_reason": "stop"}
    columns = [
        given[field.name]
        if field.name in given
        else pa.nulls(len(said), field.type)
        if field.nullable
        else pa.array([same.get(field.name, "same" if field.type == pa.string() else 1)] * len(said), field.type)
        for field in RESPONSES.schema
    ]
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_part(RESPONSES, folder, part, [pa.RecordBatch.from_arrays(columns, schema=RESPONSES.schema)])


def ours(folder: Path, out: Path, started: Callable[[], None]) -> float:
    """As the driver runs the stage, part by part; the sum of all votes. `started` hears that the imports are there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from pipeline.contracts import RESPONSES, SCORES
    from pipeline.stages.score import Params, score
    from pipeline.tables.parquet import Scan, write_part

    params = Params.model_validate({"of": "responses/t", "use": "consistency.agreement", "normalise": "number"})
    params.use.build()
    started()
    scan, votes = Scan(RESPONSES, (folder,)), 0.0

    def counted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        nonlocal votes
        for batch in batches:
            votes += pc.sum(pc.map_lookup(batch["quantities"], "votes", "first")).as_py()
            yield batch

    for part in range(scan.parts):
        write_part(SCORES, out, part, counted(score.function(params, responses=scan.at(part), data=out, out=out)))
    return votes


def polars(folder: Path, out: Path, started: Callable[[], None]) -> float:
    """A query that streams; the sum of all votes."""
    import polars as pl

    started()
    form = (
        pl.col("answer").str.strip_chars().str.to_lowercase().str.strip_prefix("the answer is ")
        .str.replace(r"^\\(?:text|boxed)\{(.*)\}$", "${1}").str.strip_chars("$").str.strip_chars_end(".")
        .str.replace_all(",", "", literal=True).str.strip_suffix(".0").alias("form")
    )  # fmt: skip
    asked = ["prompt_id", "entry"]
    rows = pl.scan_parquet(folder / "*.parquet").select("response_id", *asked, form)
    votes = rows.group_by(*asked, "form").agg(pl.len().cast(pl.Float64).alias("votes"))
    share = pl.col("votes") / pl.col("votes").sum()
    highest = pl.col("votes").top_k(2)
    of_prompts = votes.group_by(asked).agg(
        pl.col("votes").sum().alias("samples"),
        pl.len().cast(pl.Float64).alias("distinct"),
        -(share * share.log()).sum().alias("entropy"),
        pl.col("form").sort_by(-pl.col("votes"), "form").first().alias("first"),
        (highest.first() - highest.slice(1, 1).first().fill_null(0)).alias("lead"),
    )
    majority = (pl.col("form") == pl.col("first")).cast(pl.Float64).alias("majority")
    margin = (pl.col("lead") / pl.col("samples")).alias("margin")
    scores = rows.join(votes, on=[*asked, "form"]).join(of_prompts, on=asked).select(
        "response_id", "prompt_id", (pl.col("votes") / pl.col("samples")).alias("score"),
        pl.struct("votes", "samples", majority, "entropy", margin, "distinct").alias("quantities"),
    ).sort("response_id")  # fmt: skip
    scores.sink_parquet(out / "scores.parquet", compression="zstd")
    found = pl.scan_parquet(out / "scores.parquet").select(pl.col("quantities").struct.field("votes").sum())
    return float(found.collect().item())


METHODS = {"ours": ours, "polars": polars}


def measure(method: str, folder: Path) -> dict[str, float]:
    """A process that does the work: its CPU once it has started, and its highest resident memory."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, __file__, "--work", method, str(folder), out]
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert child.stdout is not None
        printed = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"voting: {method} ended with {status}")
    votes, started = map(float, printed.split())
    return {"cpu_s": used.ru_utime + used.ru_stime - started, "mib": used.ru_maxrss / 1024, "votes": votes}


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rows", type=int, default=1_000_000)
    top.add_argument("--rounds", type=int, default=3)
    top.add_argument("--out", type=Path, default=RESULT)
    top.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    given = top.parse_args()
    if given.work:
        method, folder, out = given.work
        started: list[float] = []
        votes = METHODS[method](Path(folder), Path(out), lambda: started.append(time.process_time()))
        print(votes, *started)
        return
    said: dict[tuple[str, int], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        few, many = Path(temporary) / "few", Path(temporary) / "many"
        for folder, part in [(few, 0), *((many, part) for part in range(PARTS))]:
            # In a process of its own: the kernel counts its parent's memory as a child's highest.
            making = multiprocessing.Process(target=make_part, args=(folder, part, given.rows))
            making.start()
            making.join()
        for _ in range(given.rounds):
            for method, folder, times in (("ours", few, 1), ("polars", few, 1), ("ours", many, PARTS)):
                said.setdefault((method, times), []).append(measure(method, folder))
                print(method, times * given.rows, said[method, times][-1], flush=True)
    if said["ours", 1][0]["votes"] != said["polars", 1][0]["votes"]:
        sys.exit("voting: the two count other votes")

    def ratio(of: str, one: tuple[str, int], other: tuple[str, int]) -> float:
        return median(a[of] / b[of] for a, b in zip(said[one], said[other], strict=True))

    single, tenfold, peer = ("ours", 1), ("ours", PARTS), ("polars", 1)
    found = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": {"python": sys.version.split()[0], **{n: version(n) for n in ("pyarrow", "numpy", "polars")}},
        "rounds": given.rounds,
        "rows": [
            {
                "method": method,
                "rows": times * given.rows,
                "cpu_s": round(median(r["cpu_s"] for r in rounds), 2),
                "ratio": round(ratio("cpu_s", (method, times), single), 2),
                "peak_rss_mib": round(median(r["mib"] for r in rounds)),
            }
            for (method, times), rounds in said.items()
        ],
        "goals": [
            goal("at most 0.85 x polars' CPU", ratio("cpu_s", single, peer), most=0.85),
            goal("at most 1.0 x polars' memory", ratio("mib", single, peer), most=1.0),
            goal("ten times the rows, in ten parts: at most 11 x the CPU", ratio("cpu_s", tenfold, single), most=11),
            goal("and at most 1.5 x the memory", ratio("mib", tenfold, single), most=1.5),
        ],
        "notes": [
            "`ratio` is CPU over ours of the first row, the median of the rounds' ratios. Both count the same.",
            "Four fifths of ours read each distinct answer as an exact number, in any form that numbers are written "
            "in; polars strips the few forms that stand here.",
        ],
    }
    given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
