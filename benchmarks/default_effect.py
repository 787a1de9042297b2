"""Does the default run's selection help, and does distilling from the distribution? Several seeds, one benchmark.

    python benchmarks/default_effect.py                      # the reported table: five seeds, minutes on two cores
    python benchmarks/default_effect.py --seeds 101 102 --bench 107 --set train.kd.epochs=4 --out /tmp/try.json

The parameters are the default ones. Each seed selects and trains anew, on the same pool of answers; teacher, base, pool
and benchmark are one draw each. All arms of a seed have the same budget of tokens. Raw results are kept per seed and
item.
Tuning used seeds from 100 to 199 and benchmark 107; what is reported uses others, once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml
from gateway import commit
from made_by import made_by

from pipeline.contracts import EVALS
from pipeline.core import warm
from pipeline.core.graph import upstream
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.plan.unroll import copies_of, unrolled
from pipeline.report import arms
from pipeline.report.results import Results, judge
from pipeline.tables.parquet import Scan

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "default_effect.json"
SEEDS = (201, 202, 203, 204, 205)
BENCH = 20261124
TRIED = (
    "Before it, two teachers were tried (the first in the default run alone) and about 12 configurations of training, "
    "on seed 101 and benchmark 107 (optimizer, learning rate, batch, 3 or 5 epochs); the selection rule came from an "
    "earlier study of the same kind of task."
)
# first, second, and what their difference says
COMPARED = (
    ("coverage_sft", "random_sft", "selection over random, equal tokens, cross-entropy"),
    ("kd", "coverage_sft", "top-k distillation over cross-entropy, same rows"),
    ("kd", "random_sft", "both over random"),
    ("coverage_sft", "base", "student over base, cross-entropy"),
    ("kd", "base", "student over base, top-k distillation"),
)


def seeded(default: dict[str, Any], seeds: list[int], bench: int) -> dict[str, Any]:
    """The default parameters with every selection, and what follows from it, once per seed."""
    default["ingest"]["held_out"]["seed"] = bench
    # They are read by people alone, and take minutes.
    params = {section: entries for section, entries in default.items() if section not in ("read", "gaps")}
    return unrolled(params, copies_of(params, seeds, first="select", root=ROOT))


def run_all(workers: int) -> None:
    """Run every instance of the plan in this folder but the report, several at a time, forked from one warm parent."""
    reads = upstream(resolve(load(Path("params.yaml"))))
    del reads["report@report"]
    order = TopologicalSorter(reads)
    order.prepare()
    with warm.beside(threads=1) as environment, ThreadPoolExecutor(workers) as pool:
        running: dict[Future[None], str] = {}
        while order.is_active():
            for label in order.get_ready():
                running[pool.submit(_run, label, environment)] = label
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
                order.done(running.pop(future))


def _run(label: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pipeline", *label.split("@")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{label} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def judged(folder: Path) -> Results:
    """The results as the report has them: a line per arm."""
    evals = folder / "data" / "evals"
    return judge(Scan(EVALS, tuple(sorted(evals.iterdir()))), arms.read(folder / "data"), 0, {})


def table(results: Results) -> str:
    """The result in Markdown: means over seeds, and paired differences with two intervals."""
    domains = sorted({domain for line in results.judged.values() for domain in line.domains})
    lines = [
        "| model | accuracy | sd over seeds | " + " | ".join(domains) + " |",
        "|" + "---|" * (3 + len(domains)),
    ]
    for name, line in sorted(results.judged.items(), key=lambda pair: pair[1].accuracy.value):
        spread = f"{100 * line.spread:.1f}" if line.seeds > 1 else "-"
        cells = [f"{100 * line.domains[d]:.0f}" for d in domains]
        lines.append(f"| {name} | {100 * line.accuracy.value:.1f} | {spread} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| difference | points | 95 % t over seeds | 95 % bootstrap, seeds x items | verdict |",
        "|---|---|---|---|---|",
    ]
    answers = {(a.comparison.first.name, a.comparison.second.name): a for a in results.answers}
    for first, second, what in COMPARED:
        found = answers.get((first, second))
        if found is None:
            continue
        points, over, both = 100 * found.difference.value, found.over, found.difference
        if over is None:
            lines.append(f"| {what} | {points:+.1f} | - | - | one seed |")
            continue
        lines.append(
            f"| {what} | {points:+.1f} | {100 * over.low:+.1f} to {100 * over.high:+.1f} | "
            f"{100 * both.low:+.1f} to {100 * both.high:+.1f} | {found.verdict} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--bench", type=int, default=BENCH, help="seed of the benchmark's tasks")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="change a default parameter")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--folder", type=Path, help="work here and keep it: later runs find answers in its memo")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    given.seeds = sorted(set(given.seeds))
    out = given.out.absolute()

    default = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
    for change in given.set:
        path, value = change.split("=", 1)
        *keys, last = path.split(".")
        place = default
        for key in keys:
            place = place[key]
        place[last] = yaml.safe_load(value)
    by = made_by(default)
    params = seeded(default, given.seeds, given.bench)
    params["run"] = {"executor": "inline"}

    started = time.time()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("pipeline", "data/embedded"):
            shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
        shutil.copyfile(ROOT / "dvc.yaml", folder / "dvc.yaml")
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), "utf-8")
        os.chdir(folder)
        subprocess.run([sys.executable, "-m", "pipeline", "plan"], check=True)
        run_all(given.workers)
        results = judged(folder)
    text = table(results)
    base = results.judged["base"]
    right = {name: ["".join(map(str, r.astype(int))) for r in line.right] for name, line in results.judged.items()}
    content = {
        "date": time.strftime("%Y-%m-%d"), "seeds": given.seeds, "bench": given.bench, "changed": given.set,
        "commit": commit(), "made_by": by, "minutes": round((time.time() - started) / 60, 1), "tried": TRIED,
        "table": text.splitlines(), "items": base.items.tolist(), "domains": [base.names[i] for i in base.of_domain],
        "right": right,
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    print(text)
    print(f"\nraw results: {out}, {content['minutes']} minutes")


if __name__ == "__main__":
    main()
