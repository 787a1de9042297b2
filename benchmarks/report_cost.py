"""What a million answers and ten models add to an empty report, beside the same tables as rows in Python.

    make bench-report                                     # five minutes
    PYTHONPATH=. python benchmarks/report_cost.py --answers 100000 --out /tmp/try.json

The run is made up (`tests/stages/report_data.py`), and its answers, scores and selections are repeated under other ids.
A report is made in a process of its own. CPU is user and system time of it and its children; memory what all of them
hold for themselves, at the highest of any moment. The peer reads the columns that the report asks into Python's
objects and holds them, which is how the report was made before it asked its tables by SQL.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pyarrow as pa

from pipeline import contracts
from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import SECTION_OF
from pipeline.plan.resolve import resolve
from pipeline.tables import parquet
from pipeline.tables.parquet import Scan
from tests.stages import report_data

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "report_cost.json"
MODELS, ITEMS, PROMPTS, PARTS = 10, 2400, 500, 4
NAMES = ("response_id", "prompt_id", "request_id")
# What the report asks of its large tables.
ASKED = {
    "responses": ["response_id", "prompt_id", "entry", "domain", "finish_reason", "prompt_tokens", "completion_tokens"],
    "scores": ["response_id", "score"],
    "selections": ["response_id", "prompt_id", "domain", "tokens", "kept", "reason"],
    "evals": ["item_id", "domain", "level", "metric", "confidence", "quantities"],
}
MIB = 1 << 20


def params() -> dict[str, Any]:
    """The made-up run with ten models that are judged."""
    own = {key: value for key, value in report_data.PARAMS.items() if key in {*SECTION_OF.values(), "seed"}}
    more = {f"more_{n}": {**own["train"]["coverage_sft"], "seed": n} for n in range(MODELS - len(own["evaluate"]))}
    judged = {name: {"model": name, "pool": "bench"} for name in more}
    return {**own, "train": {**own["train"], **more}, "evaluate": {**own["evaluate"], **judged}}


def make(data: Path, answers: int) -> None:
    """Data of a run with so many answers; with none, of as few as it can have."""
    report_data.build(data, params(), *((PROMPTS, ITEMS) if answers else (5, 5)))
    times = -(-answers // (6 * PROMPTS))
    folders = {
        file.parent for kind in ("responses", "scores", "selections") for file in (data / kind).rglob("*.parquet")
    }
    for folder in sorted({*folders, data / "prompts/train/tasks"}) if times > 1 else ():
        table = contracts.TABLES[folder.relative_to(data).parts[0]]
        rows = Scan(table, (folder,)).read()
        parquet.write(table, folder, PARTS, repeated(rows, times))


def repeated(rows: pa.Table, times: int) -> Iterator[pa.RecordBatch]:
    """A table again and again, each time under other ids."""
    for turn in range(times):
        again = rows
        for name in set(NAMES) & set(rows.column_names):
            own = [hashlib.md5(f"{turn} {value}".encode()).hexdigest() for value in rows[name].to_pylist()]
            again = again.set_column(again.schema.get_field_index(name), again.schema.field(name), [own])
        yield from again.combine_chunks().to_batches()


def report(data: Path) -> None:
    """Make the report."""
    run_instance(resolve(params()).instances["report@report"], RunSettings(), data, data.parent)


def rows_in_python(data: Path) -> list[list[dict[str, Any]]]:
    """What the report asks, held as rows."""
    found = []
    for kind, columns in ASKED.items():
        folders = sorted({file.parent for file in (data / kind).rglob("*.parquet")})
        found += [Scan(contracts.TABLES[kind], (folder,)).pylist(columns) for folder in folders]
    return found


class Watch(threading.Thread):
    """The memory that this process and its children hold for themselves, looked at again and again."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.process, self.highest, self.over = psutil.Process(), 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.02):
            held = 0
            for process in (self.process, *self.process.children(recursive=True)):
                try:
                    held += process.memory_full_info().uss
                except psutil.NoSuchProcess:
                    continue
            self.highest = max(self.highest, held)


def measured(method: str, data: Path) -> dict[str, float]:
    """CPU seconds and MiB of a method, in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--method", method, "--data", str(data)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(method: str, data: Path) -> None:
    """Run a method here and print what it took."""
    watch = Watch()
    watch.start()
    held = {"ours": report, "rows in Python": rows_in_python}[method](data)
    watch.over.set()
    watch.join()
    print(json.dumps({"cpu_s": sum(os.times()[:4]), "mib": watch.highest / MIB, "held": len(held or ())}))


def main() -> None:
    """Measure and write the result."""
    from gateway import commit, goal, machine

    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--answers", type=int, default=1_000_000)
    top.add_argument("--rounds", type=int, default=3)
    top.add_argument("--out", type=Path, default=RESULT)
    top.add_argument("--method", help=argparse.SUPPRESS)
    top.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    given = top.parse_args()
    if given.method:
        measure(given.method, given.data)
        return
    added: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        few, many = Path(temporary) / "few" / "data", Path(temporary) / "many" / "data"
        make(few, 0)
        make(many, given.answers)
        for _ in range(given.rounds):
            for method in ("ours", "rows in Python"):
                empty, full = measured(method, few), measured(method, many)
                print(method, empty, full, flush=True)
                for key in ("cpu_s", "mib"):
                    added.setdefault(method, {}).setdefault(key, []).append(full[key] - empty[key])
    ratio = {
        key: median(a / b for a, b in zip(added["ours"][key], added["rows in Python"][key], strict=True))
        for key in ("cpu_s", "mib")
    }
    found = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in ("duckdb", "pyarrow")}},
        "rounds": given.rounds,
        "rows": [
            {"method": method, "answers": given.answers, "models": MODELS, "cpu_s": round(median(took["cpu_s"]), 2),
             "mib": round(median(took["mib"])), "ratio": round(ratio["cpu_s"], 2) if method == "ours" else 1.0}
            for method, took in added.items()
        ],
        "goals": [
            goal("at most 1/4 of the CPU of rows in Python", ratio["cpu_s"], most=0.25),
            goal("at most 1/4 of the memory of rows in Python", ratio["mib"], most=0.25),
        ],
        "notes": ["Figures are what is added to an empty report, or to tables of a few rows; `ratio` is of CPU."],
    }  # fmt: skip
    given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
