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
import copy
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

import numpy as np
import yaml

from pipeline.contracts import EVALS
from pipeline.core import warm
from pipeline.core.graph import upstream
from pipeline.plan.resolve import load, resolve
from pipeline.report import statistics
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
    params = copy.deepcopy(default)
    params["ingest"]["held_out"]["seed"] = bench
    params["read"], params["gaps"] = {}, {}
    fixed = {
        "acquire": params["acquire"],
        "quality": {k: v for k, v in params["quality"].items() if v["of"].startswith("responses")},
    }
    for section in ("select", "pack", "quality", "probe", "train", "evaluate"):
        entries = {k: v for k, v in params[section].items() if k not in fixed.get(section, {})}
        params[section] = dict(fixed.get(section, {}))
        for name, entry in entries.items():
            if section == "evaluate" and entry["model"] in fixed["acquire"]:
                params[section][name] = entry
                continue
            for seed in seeds:
                params[section][f"{name}_s{seed}"] = _renamed(section, entry, seed)
    return params


def _renamed(section: str, entry: dict[str, Any], seed: int) -> dict[str, Any]:
    entry = copy.deepcopy(entry)
    for key in {"pack": ("by",), "probe": ("of",), "evaluate": ("model",)}.get(section, ()):
        entry[key] = f"{entry[key]}_s{seed}"
    if section in ("quality", "train"):
        top, *names = entry["of"].split("/")
        entry["of"] = "/".join([top, *(f"{name}_s{seed}" for name in names)])
    if section in ("select", "train"):
        entry["seed"] = seed
    return entry


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


def collect(folder: Path, seeds: list[int]) -> tuple[list[str], list[str], dict[str, list[list[int]]]]:
    """Item ids, their domains, and per arm a row of right (1) or wrong (0) per seed; base and teacher have one row."""
    found: dict[str, dict[str, tuple[str, int]]] = {}
    for table in sorted((folder / "data" / "evals").iterdir()):
        rows = Scan(EVALS, (table,)).pylist(["item_id", "domain", "metric"])
        found[table.name] = {row["item_id"]: (row["domain"], int(row["metric"])) for row in rows}
    items = sorted(found["base"])
    arms = sorted({name.rsplit("_s", 1)[0] if name.rsplit("_s", 1)[-1].isdigit() else name for name in found})
    right = {
        arm: [
            [found[name][item][1] for item in items]
            for name in ([arm] if arm in found else [f"{arm}_s{s}" for s in seeds])
        ]
        for arm in arms
    }
    return items, [found["base"][item][0] for item in items], right


def table(seeds: list[int], domains: list[str], right: dict[str, list[list[int]]]) -> str:
    """The result in Markdown: means over seeds, and paired differences with two intervals."""
    lines = [
        "| model | accuracy | sd over seeds | " + " | ".join(sorted(set(domains))) + " |",
        "|" + "---|" * (3 + len(set(domains))),
    ]
    of = np.array(domains)
    for arm, rows in sorted(right.items(), key=lambda kv: np.mean(kv[1])):
        values = np.array(rows)
        spread = f"{100 * values.mean(1).std(ddof=1):.1f}" if len(values) > 1 else "-"
        cells = [f"{100 * values[:, of == d].mean():.0f}" for d in sorted(set(domains))]
        lines.append(f"| {arm} | {100 * values.mean():.1f} | {spread} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| difference | points | 95 % t over seeds | 95 % bootstrap, seeds x items | verdict |",
        "|---|---|---|---|---|",
    ]
    for first, second, what in COMPARED:
        if first not in right or second not in right:
            continue
        difference = np.array(right[first], float) - np.array(right[second], float)
        points = 100 * difference.mean()
        if len(difference) < 2:
            lines.append(f"| {what} | {points:+.1f} | - | - | one seed |")
            continue
        both = statistics.over_seeds_and_items(difference, seed=0)
        over = statistics.over_seeds(difference)
        lines.append(
            f"| {what} | {points:+.1f} | {100 * over.low:+.1f} to {100 * over.high:+.1f} | "
            f"{100 * both.low:+.1f} to {100 * both.high:+.1f} | {_verdict(over, both)} |"
        )
    return "\n".join(lines)


def _verdict(over: statistics.Interval, both: statistics.Interval) -> str:
    """What both intervals say; where they differ, nothing is claimed."""
    said = {statistics.verdict(over), statistics.verdict(both)}
    return said.pop() if len(said) == 1 else "inconclusive"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--bench", type=int, default=BENCH, help="seed of the benchmark's tasks")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="change a default parameter")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--folder", type=Path, help="work here and keep it: later runs find answers in its memo")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    out = given.out.absolute()

    default = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
    for change in given.set:
        path, value = change.split("=", 1)
        *keys, last = path.split(".")
        place = default
        for key in keys:
            place = place[key]
        place[last] = yaml.safe_load(value)
    params = seeded(default, given.seeds, given.bench)
    params["run"] = {"executor": "inline"}

    started = time.time()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("pipeline", "data/embedded"):
            shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), "utf-8")
        os.chdir(folder)
        subprocess.run([sys.executable, "-m", "pipeline", "plan"], check=True)
        run_all(given.workers)
        items, domains, right = collect(folder, given.seeds)
    text = table(given.seeds, domains, right)
    content = {
        "date": time.strftime("%Y-%m-%d"), "seeds": given.seeds, "bench": given.bench, "changed": given.set,
        "minutes": round((time.time() - started) / 60, 1), "tried": TRIED,
        "table": text.splitlines(), "items": items, "domains": domains,
        "right": {arm: ["".join(map(str, row)) for row in rows] for arm, rows in right.items()},
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    print(text)
    print(f"\nraw results: {out}, {content['minutes']} minutes")


if __name__ == "__main__":
    main()
