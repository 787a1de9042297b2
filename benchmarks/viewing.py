"""What a page of `stillhouse view` costs over a million responses, beside the same through a connection of its own.

    make bench-view                                       # three minutes of one core
    PYTHONPATH=. python benchmarks/viewing.py --rows 100000 --rounds 5 --out /tmp/try.json

The server is the command itself, asked over HTTP as a browser does, the milliseconds from the request to the last byte.
Every page has another number, so that none is shown twice; a filter counts its rows when it is first asked for. Memory
is what the server and its child hold resident together at the end of all pages, and the highest of any moment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from importlib.metadata import version
from pathlib import Path
from statistics import median

import psutil
from gateway import commit, goal, machine

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "viewing.json"
PARTS = 4
FILTER = "answer LIKE '%7' AND finish_reason = 'stop'"
PAGES = {
    "a filter, page by page": {"where": FILTER},
    "a filter, sorted, page by page": {"where": FILTER, "order": "answer"},
    "everything, page by page": {},
}
MIB = 1 << 20


def make_part(folder: Path, part: int, rows: int) -> None:
    """Answers of some 300 characters, eight to a prompt."""
    import numpy as np
    import pyarrow as pa

    from pipeline.contracts import RESPONSES
    from pipeline.tables import ids, parquet

    draw = np.random.default_rng(part)
    folder.mkdir(parents=True, exist_ok=True)
    asked = [f"What is {a} plus {b}?" for a, b in draw.integers(0, 10**6, (rows // 8, 2)).tolist()]
    prompts = [ids.digest("prompt", part, i) for i in range(len(asked))]
    words = draw.integers(0, 10**4, (rows, 50)).astype(str)
    same = {"domain": "add", "entry": "teacher", "finish_reason": "stop", "model_id": "m", "request_id": "r"}
    columns = {
        "response_id": [ids.digest("response", part, i) for i in range(rows)],
        "prompt_id": np.repeat(prompts, 8).tolist(),
        "messages": [[{"role": "user", "content": text}] for text in asked for _ in range(8)],
        "sample": list(range(8)) * (rows // 8),
        "content": [" ".join(row) for row in words.tolist()],
        "answer": words[:, -1].tolist(),
        **{name: [value] * rows for name, value in same.items()},
        **{name: [1] * rows for name in ("seed", "attempts", "completion_tokens")},
    }
    batch = RESPONSES.batch(**{name: pa.array(v, RESPONSES.columns[name].type) for name, v in columns.items()})
    parquet.write_part(RESPONSES, folder, part, [batch])


class Watch(threading.Thread):
    """The resident memory of a process and its children, looked at again and again."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process, self.highest = psutil.Process(pid), 0

    def now(self) -> int:
        """Bytes resident; a page that both share counts once for each."""
        return sum(process.memory_info().rss for process in self.all())

    def all(self) -> list[psutil.Process]:
        return [self.process, *self.process.children()]

    def cpu(self) -> float:
        """Milliseconds of CPU that they have used."""
        return sum(1000 * sum(process.cpu_times()[:2]) for process in self.all())

    def run(self) -> None:
        # The server ends, and so does this.
        with contextlib.suppress(psutil.NoSuchProcess):
            while True:
                self.highest = max(self.highest, self.now())
                time.sleep(0.02)


def fetched(address: str, given: dict[str, str]) -> float:
    """Milliseconds of a page."""
    opened, began = urllib.request.build_opener(urllib.request.ProxyHandler({})), time.perf_counter()
    with opened.open(f"{address}?{urllib.parse.urlencode(given)}") as reply:
        text = reply.read()
    if b"<tbody>" not in text:
        sys.exit("viewing: a page has no rows")
    return 1000 * (time.perf_counter() - began)


def served(root: Path, rounds: int) -> tuple[dict[str, tuple[float, float]], dict[str, float]]:
    """Milliseconds of a page by what is asked for, by the clock and of CPU, and the memory in MiB."""
    command, env = [sys.executable, "-m", "pipeline", "view"], {**os.environ, "PYTHONPATH": str(ROOT)}
    said: dict[str, tuple[float, float]] = {}
    with subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        address = child.stdout.readline().strip()
        watch = Watch(child.pid)
        watch.start()
        before = watch.cpu()
        said["the first page"] = fetched(address, {"where": FILTER}), watch.cpu() - before
        for method, given in PAGES.items():
            fetched(address, given)
            before = watch.cpu()
            times = [fetched(address, {**given, "page": str(page)}) for page in range(1, rounds + 1)]
            said[method] = median(times), (watch.cpu() - before) / rounds
            print(method, said[method], "ms", watch.now() // MIB, "MiB", flush=True)
        memory = {"now": watch.now() / MIB, "highest": watch.highest / MIB}
        child.terminate()
    return said, memory


def alone(root: Path, rounds: int) -> tuple[float, float]:
    """The same of the filtered rows of a page, each time through a child and a connection of its own."""
    from pipeline.tables.rules import query

    times, before = [], os.times()
    for page in range(1, rounds + 1):
        began = time.perf_counter()
        query(root / "data", f"SELECT * FROM responses WHERE {FILTER} LIMIT 50 OFFSET {50 * page}")
        times.append(1000 * (time.perf_counter() - began))
    return median(times), 1000 * (sum(os.times()[:4]) - sum(before[:4])) / rounds


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rows", type=int, default=1_000_000)
    top.add_argument("--rounds", type=int, default=30)
    top.add_argument("--out", type=Path, default=RESULT)
    given = top.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for part in range(PARTS):
            # In a process of its own: what it held is gone when it ends.
            folder = root / "data" / "responses" / "train" / "teacher"
            making = multiprocessing.Process(target=make_part, args=(folder, part, given.rows // PARTS))
            making.start()
            making.join()
        said, memory = served(root, given.rounds)
        said["the filter by `query`, anew"] = alone(root, given.rounds)
    peer = said["the filter by `query`, anew"][1]
    found = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": {"python": sys.version.split()[0], **{n: version(n) for n in ("duckdb", "pyarrow", "fastapi")}},
        "rounds": given.rounds,
        "unit": "pages of each kind",
        "rows": [
            {"method": method, "rows": given.rows, "ms": round(ms), "cpu_ms": round(cpu), "ratio": round(cpu / peer, 2)}
            for method, (ms, cpu) in said.items()
        ],
        "goals": [
            goal("a filtered page after the first: at most 300 ms", said["a filter, page by page"][0], most=300),
            goal("resident memory: at most 500 MiB", memory["highest"], most=500),
        ],
        "notes": [
            "`ratio` is CPU over that of the filter by `query`; `ms` is the median by the clock.",
            f"Resident, the server and its child together: at the end {memory['now']:.0f} MiB, at most "
            f"{memory['highest']:.0f} MiB.",
        ],
    }
    given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
