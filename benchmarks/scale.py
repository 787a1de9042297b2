"""What ten times the rows cost: CPU and memory of `score`, `select`, `curate` and `pack` from 100,000 to a million.

    make bench-scale                                      # ten minutes of one core
    python benchmarks/scale.py --few 10000 --many 100000 --out /tmp/try.json

Each stage runs as the driver runs it, a process a measurement, on tables of four parts: answers, eight a prompt, are
voted on, an answer a prompt is selected by its votes, and what is selected is packed; as many prompts of 10 to 30 words
are held against each other and against 1,000 of a benchmark. CPU is that of the process and its children, with start
and imports. Memory is what belongs to no file (`Pss_Anon`), of both together, looked at every twenty milliseconds;
pages of a mapped file can be given back at any time. A row of one stage is one of its input.
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
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from gateway import commit, goal, machine

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "scale.json"
SAMPLES, PARTS, BENCH, SOME = 8, 4, 1_000, 8_000
ANSWERS, SCORES_OF, CHOSEN = (
    "responses/train/teacher",
    "scores/responses/train/votes",
    "selections/responses/train/mine",
)
# Stage -> its entry, its parameters, what it reads, and what it writes.
WORK: dict[str, tuple[str, dict[str, Any], dict[str, tuple[str, ...]], str]] = {
    "score": (
        "votes",
        {"of": "responses/train", "use": "consistency.agreement", "normalise": "number"},
        {"responses": (ANSWERS,)},
        SCORES_OF,
    ),
    "select": (
        "mine",
        {"of": "responses/train", "use": "mixture.coverage", "by": "votes.score", "prefer": 0.6, "seed": 17},
        {"responses": (ANSWERS,), "scores": (SCORES_OF,), "gates": (), "gaps": ()},
        CHOSEN,
    ),
    "pack": (
        "mine",
        {"of": "responses/train", "by": "mine", "student": "base"},
        {"responses": (ANSWERS,), "selection": (CHOSEN,), "tokenizer": ("models/base/tokenizer",)},
        "examples/mine",
    ),
    "curate": (
        "train",
        {"instance": "train", "against": "bench"},
        {"prompts": ("prompts/train",), "against": ("prompts/bench",)},
        "drops/train",
    ),
}


def make(data: Path, rows: int) -> None:
    """The tables that stages begin with, `rows` answers and as many prompts."""
    from pipeline.contracts import PROMPTS, RESPONSES
    from pipeline.tables import parquet

    parquet.write(RESPONSES, data / ANSWERS, PARTS, answers(rows))
    parquet.write(PROMPTS, data / "prompts" / "train", PARTS, prompts(rows, seed=1))
    parquet.write(PROMPTS, data / "prompts" / "bench", 1, prompts(BENCH, seed=2))
    form = data / "models" / "base"
    form.mkdir(parents=True)
    (form / "tokenizer").symlink_to(ROOT / "data" / "embedded" / "base")


def answers(rows: int) -> Iterator[Any]:
    """Sums of which some are easy; a wrong answer is near the right one."""
    import numpy as np

    from pipeline.contracts import RESPONSES
    from pipeline.tables import ids

    for first in range(0, rows // SAMPLES, SOME // SAMPLES):
        draw, made = np.random.default_rng(first), []
        for i in range(first, min(first + SOME // SAMPLES, rows // SAMPLES)):
            a, b = draw.integers(0, 100_000, 2).tolist()
            asked, easy = ids.digest("prompt", i), draw.random()
            for sample in range(SAMPLES):
                said = a + b + (0 if draw.random() < easy else int(draw.integers(1, 6)))
                made.append({
                    "response_id": ids.digest("response", i, sample), "request_id": ids.digest("request", i, sample),
                    "prompt_id": asked, "messages": [{"role": "user", "content": f"add {a} {b}"}],
                    "domain": f"sum {i % 8}", "entry": "teacher", "model_id": "m", "sample": sample, "seed": sample,
                    "content": f"{a}+{b}#{said}", "answer": str(said), "finish_reason": "stop", "attempts": 1,
                    "completion_tokens": 18,
                })  # fmt: skip
        yield RESPONSES.rows(made)


def prompts(rows: int, seed: int) -> Iterator[Any]:
    """Words by Zipf's law."""
    import numpy as np

    from pipeline.contracts import PROMPTS
    from pipeline.tables import ids

    chances = np.cumsum(1 / np.arange(1, 30_001))
    for first in range(0, rows, SOME):
        draw = np.random.default_rng((seed, first))
        made = []
        for i in range(first, min(first + SOME, rows)):
            words = np.searchsorted(chances, draw.random(draw.integers(10, 31)) * chances[-1]).tolist()
            name = ids.digest("prompt", seed, i)
            made.append({
                "prompt_id": name, "messages": [{"role": "user", "content": " ".join(f"w{word}" for word in words)}],
                "domain": "words", "source": f"line {i}", "group": name,
            })  # fmt: skip
        yield PROMPTS.rows(made)


def work(stage: str, data: Path) -> None:
    """Run one stage."""
    from pipeline.core.driver import run_instance
    from pipeline.core.settings import RunSettings
    from pipeline.core.stage import Instance, stage_named

    name, given, inputs, output = WORK[stage]
    if stage == "select":
        from pipeline.contracts import RESPONSES
        from pipeline.tables.parquet import Scan

        given = {**given, "budget_rows": Scan(RESPONSES, (data / ANSWERS,)).count() // SAMPLES}
    params = stage_named(stage).params.model_validate(given)
    run_instance(Instance(stage, name, params, inputs, output, ""), RunSettings(), data, data)


def measure(stage: str, data: Path) -> dict[str, float]:
    """A process that does the work: its CPU, and the most private memory of it and its children."""
    command = [sys.executable, __file__, "--work", stage, str(data)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, env=env)
    highest = 0
    while not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        highest = max(highest, private(child.pid))
        time.sleep(0.02)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"scale: {stage} ended with {status}")
    return {"cpu_s": used.ru_utime + used.ru_stime, "mib": highest / 2**20}


def private(pid: int) -> int:
    """Bytes of a process and its children that belong to no file; what they share counts once."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    own = next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss_Anon:")), 0)
    return own * 1024 + sum(private(int(one)) for one in children)


def result(said: dict[tuple[str, int], list[dict[str, float]]], given: argparse.Namespace) -> dict[str, object]:
    """What the measurements say."""
    found = {key: {of: median(r[of] for r in rounds) for of in ("cpu_s", "mib")} for key, rounds in said.items()}
    rows, goals = [], []
    for stage in given.stages:
        few, many = found[stage, given.few], found[stage, given.many]
        grown = many["mib"] - few["mib"]
        for size, one in ((given.few, few), (given.many, many)):
            rows.append(
                {
                    "method": stage,
                    "rows": size,
                    "cpu_s": round(one["cpu_s"], 2),
                    "ratio": round(one["cpu_s"] / few["cpu_s"], 2),
                    "private_mib": round(one["mib"]),
                    "memory_ratio": round(one["mib"] / few["mib"], 2),
                    "bytes_a_row_more": 0 if one is few else round(grown * 2**20 / (given.many - given.few)),
                }
            )
        goals += [
            goal(f"{stage}, ten times the rows: at most 11 x the CPU", many["cpu_s"] / few["cpu_s"], most=11),
            goal(f"{stage}: and at most 1.5 x the memory", many["mib"] / few["mib"], most=1.5),
        ]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": {
            "python": sys.version.split()[0],
            **{name: version(name) for name in ("pyarrow", "duckdb", "numpy")},
        },
        "rounds": given.rounds,
        "rows": rows,
        "goals": goals,
        "notes": [
            "`ratio` is CPU over that of the few rows. What select and curate hold of every row is "
            "`bytes_a_row_more`: they decide over all rows."
        ],
    }


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--few", type=int, default=100_000)
    top.add_argument("--many", type=int, default=1_000_000)
    top.add_argument("--rounds", type=int, default=1)
    top.add_argument("--stages", nargs="+", default=list(WORK), choices=WORK)
    top.add_argument("--out", type=Path, default=RESULT)
    top.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    given = top.parse_args()
    if given.work:
        work(given.work[0], Path(given.work[1]))
        return
    said: dict[tuple[str, int], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for rows in (given.few, given.many):
            making = multiprocessing.Process(target=make, args=(Path(temporary) / str(rows), rows))
            making.start()
            making.join()
        for _ in range(given.rounds):
            for stage in given.stages:
                for rows in (given.few, given.many):
                    said.setdefault((stage, rows), []).append(measure(stage, Path(temporary) / str(rows)))
                    print(stage, rows, said[stage, rows][-1], flush=True)
    given.out.write_text(json.dumps(result(said, given), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
