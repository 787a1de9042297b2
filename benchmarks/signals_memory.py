"""What holding a row of signals costs: private memory of a training's rows, as Arrow and as Python dictionaries.

    make bench-signals                                    # five minutes of one core
    python benchmarks/signals_memory.py --rows 500 --few 2000 --many 8000 --out /tmp/try.json

A table of signals with 16 stored outcomes a place, of which there are 60% of the tokens, is opened and read through
once in batches of 8 rows, as a training does. Private is memory that belongs to no file (RssAnon), the highest above
that before, looked at every two milliseconds; pages of a mapped file can be given back at any time. Rows of 1,024
tokens are compared with dictionaries as Parquet gives them, sorted and made tensors a batch at a time; rows of 64
tokens say how memory grows with their number. A process a measurement.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gateway import commit, goal, machine

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "signals_memory.json"
STORED, SHARE, BATCH, LONG, SHORT, PARTS, VOCABULARY = 16, 0.6, 8, 1024, 64, 4, 32_000


def make_table(folder: Path, count: int, tokens: int) -> None:
    """Random rows in parts, in no order across them."""
    import numpy as np
    import pyarrow as pa

    from pipeline.contracts import SIGNALS
    from pipeline.tables import ids, parquet

    draw = np.random.default_rng(0)
    places = int(tokens * SHARE)

    def lists(array: Any, size: int) -> Any:
        offsets = np.arange(0, len(array) + 1, size, dtype=np.int32)
        return pa.ListArray.from_arrays(offsets, array)

    folder.mkdir()
    for part in range(PARTS):
        n = count // PARTS
        names = [ids.digest("example", part, i) for i in range(n)]
        of_rows = np.full(n, tokens - places, np.int32)
        spans = pa.StructArray.from_arrays(
            [pa.array(of_rows), pa.array(of_rows + places)], fields=list(SIGNALS.schema.field("spans").type.value_type)
        )
        reals = lambda size: pa.array(-draw.random(size, dtype=np.float32))  # noqa: E731
        outcomes = draw.integers(0, VOCABULARY, n * places * STORED, dtype=np.int32)
        given = {
            "example_id": pa.array(names),
            "prompt_id": pa.array(names),
            "token_ids": lists(pa.array(draw.integers(0, VOCABULARY, n * tokens, dtype=np.int32)), tokens),
            "spans": lists(spans, 1),
            "topk_ids": lists(lists(pa.array(outcomes), STORED), places),
            "topk_logprobs": lists(lists(reals(n * places * STORED), STORED), places),
            "tail_mass": lists(pa.array(draw.random(n * places, dtype=np.float32)), places),
            "target_logprob": lists(reals(n * places), places),
            "response_ids": lists(pa.array(names), 1),
        }
        columns = []
        for field in SIGNALS.schema:
            if field.name in given:
                columns.append(given[field.name].cast(field.type))
            elif field.nullable:
                columns.append(pa.nulls(n, field.type))
            else:
                columns.append(pa.array([1.0 if pa.types.is_floating(field.type) else "same"] * n, field.type))
        parquet.write_part(SIGNALS, folder, part, [pa.RecordBatch.from_arrays(columns, schema=SIGNALS.schema)])


def ours(folder: Path, scratch: Path) -> int:
    """As the trainer holds and reads them."""
    import numpy as np

    from pipeline.contracts import SIGNALS
    from pipeline.core.methods import find
    from pipeline.tables.parquet import Scan
    from pipeline.training.places import places
    from pipeline.training.rows import Rows

    network = find("network", "language.causal").factory()
    rows = Rows.of(Scan(SIGNALS, (folder,)), scratch / "rows.arrow", VOCABULARY)
    for start in range(0, len(rows), BATCH):
        some = rows.take(np.arange(start, min(start + BATCH, len(rows))))
        network.collate(some)
        places(some)
    return len(rows)


def dictionaries(folder: Path, scratch: Path) -> int:
    """As it is usually written, and was here."""
    import torch

    from pipeline.contracts import SIGNALS
    from pipeline.tables.parquet import Scan

    rows = sorted(Scan(SIGNALS, (folder,)).pylist(), key=lambda row: row["example_id"])
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        ids = torch.zeros(len(some), max(len(row["token_ids"]) for row in some), dtype=torch.long)
        loss = torch.zeros_like(ids, dtype=torch.bool)
        for i, row in enumerate(some):
            ids[i, : len(row["token_ids"])] = torch.tensor(row["token_ids"])
            for span in row["spans"]:
                loss[i, span["start"] : span["end"]] = True
        for column in ("topk_ids", "topk_logprobs", "tail_mass"):
            torch.tensor([values for row in some for values in row[column]])
    return len(rows)


METHODS: dict[str, Callable[[Path, Path], int]] = {"ours": ours, "dictionaries": dictionaries}


class Peak(threading.Thread):
    """The highest private memory while it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.highest = private()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.002):
            self.highest = max(self.highest, private())


def private() -> int:
    """Bytes that belong to no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise KeyError("RssAnon")


def measure(method: str, folder: Path, warm: Path, scratch: Path) -> dict[str, float]:
    """One pass over a table, after one over another that loads what is loaded once."""
    import torch

    torch.set_num_threads(1)
    METHODS[method](warm, scratch)
    peak = Peak()
    peak.start()
    before = time.process_time()
    rows = METHODS[method](folder, scratch)
    cpu = time.process_time() - before
    peak.over.set()
    peak.join()
    return {"rows": rows, "peak": peak.highest - peak.before, "cpu_s": cpu}


def result(said: dict[tuple[str, int, int], dict[str, float]], given: argparse.Namespace) -> dict[str, object]:
    """What the measurements say."""
    rows = [
        {
            "method": method,
            "rows": int(found["rows"]),
            "tokens": tokens,
            "private_peak_mib": round(found["peak"] / 2**20, 1),
            "kib_per_row": round(found["peak"] / found["rows"] / 1024, 2),
            "ratio": round(found["peak"] / said["ours", count, tokens]["peak"], 2),
            "cpu_s": round(found["cpu_s"], 2),
        }
        for (method, count, tokens), found in said.items()
    ]
    many, few = (said["ours", count, SHORT]["peak"] for count in (given.many, given.few))
    long = [said[method, given.rows, LONG]["peak"] for method in METHODS]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": {
            "python": sys.version.split()[0],
            **{name: version(name) for name in ("pyarrow", "torch", "numpy")},
        },
        "rounds": 1,
        "rows": rows,
        "goals": [
            goal("private memory a row at most 1/8 of dictionaries'", long[0] / long[1], most=0.125),
            goal(f"from {given.few:,} to {given.many:,} rows: at most 1.1 x the private memory", many / few, most=1.1),
        ],
        "notes": [
            f"{STORED} outcomes at {SHARE:.0%} of the tokens. A row of {LONG:,} tokens is "
            f"{LONG * 4 + int(LONG * SHARE) * (STORED * 8 + 8):,} bytes of numbers. `ratio` is over ours of the same "
            "rows. Grows with the number of rows: an id and a place a row.",
        ],
    }


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rows", type=int, default=2_000)
    top.add_argument("--few", type=int, default=20_000)
    top.add_argument("--many", type=int, default=80_000)
    top.add_argument("--out", type=Path, default=RESULT)
    top.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    given = top.parse_args()
    if given.measure:
        method, folder, warm = given.measure
        with tempfile.TemporaryDirectory() as scratch:
            print(json.dumps(measure(method, Path(folder), Path(warm), Path(scratch))))
        return
    said = {}
    with tempfile.TemporaryDirectory() as temporary:
        warm = Path(temporary) / "warm"
        make_table(warm, BATCH * PARTS, LONG)
        work = [(method, given.rows, LONG) for method in METHODS]
        for method, count, tokens in [*work, ("ours", given.few, SHORT), ("ours", given.many, SHORT)]:
            folder = Path(temporary) / f"{count}x{tokens}"
            if not folder.exists():
                make_table(folder, count, tokens)
            command = [sys.executable, __file__, "--measure", method, str(folder), str(warm)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            said[method, count, tokens] = json.loads(printed.splitlines()[-1])
            print(method, count, tokens, said[method, count, tokens], flush=True)
    given.out.write_text(json.dumps(result(said, given), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
