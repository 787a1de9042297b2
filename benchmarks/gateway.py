"""What an answer costs the client: CPU of the stage `generate`, with its key, memo and table, beside other clients.

    make bench-gateway                                    # five minutes of two cores
    python benchmarks/gateway.py --rounds 1 --rows 1000 --few 200 --out /tmp/try.json

The server is instant_server.c. All clients hold 64 requests in flight (distilabel: its batch of 500; Curator: 128) and
are processes of their own, in turn, some rounds; CPU is user and system time, with children. Peers live in
`.venv-peers` and `.venv-peers-curator` (`make bench-peers`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from gateway_client import IN_FLIGHT, MODEL, prompt

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "gateway.json"
CLIENT = HERE / "gateway_client.py"
OWN = Path(sys.executable)
PEERS = ROOT / ".venv-peers" / "bin" / "python"
CURATOR = ROOT / ".venv-peers-curator" / "bin" / "python"
LONGEST_S = 900
TICK = os.sysconf("SC_CLK_TCK")
POOLS: dict[str, dict[str, Any]] = {
    "tasks": {"pool": "train", "use": "files.jsonl", "path": "train.jsonl"},
    "held_out": {"pool": "bench", "use": "procedural.tasks", "rows": 200, "seed": 7},
}
# Only what generate needs.
PARAMS = {
    "seed": 17,
    "acquire": {"teacher": {"use": "remote.endpoint", "model": MODEL, "version": "1"}},
    "curate": {"train": {"against": "bench"}},
    "generate": {"teacher": {"pool": "train", "model": "teacher", "k": 1, "temperature": 0.7}},
    **{section: {} for section in "score read quality gaps select pack probe train distill evaluate".split()},
}


@dataclass(frozen=True)
class Spent:
    """What one process used: CPU-seconds of all of it, and what it says of its work, without imports; MiB at its peak;
    CPU-seconds of the server meanwhile."""

    whole_s: float
    work_s: float
    work_wall_s: float
    peak_mib: float
    server_s: float


@dataclass
class Method:
    """A way to get rows answered: `start` gives the command and its folder; `spent` holds what each round used."""

    name: str
    rows: int
    start: Callable[[Path], tuple[list[str], Path]]
    spent: list[Spent] = field(default_factory=list)


def proportional_memory(pid: int) -> float:
    """MiB of a process and its descendants, pages that they share counted once."""
    total, waiting = 0, [pid]
    while waiting:
        place = Path(f"/proc/{waiting.pop()}")
        try:
            found = re.search(r"^Pss:\s+(\d+)", (place / "smaps_rollup").read_text(), re.MULTILINE)
            total += int(found[1]) if found else 0
            for thread in (place / "task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
        except OSError:
            continue
    return total / 1024


def measured(method: Method, server: int, scratch: Path) -> Spent:
    """Run a method once in a folder of its own."""
    command, folder = method.start(scratch)
    settings = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    # A warm parent would pay for our imports.
    env = {k: v for k, v in os.environ.items() if k != "STILLHOUSE_WARM"} | settings
    before, begun, peak = cpu_of(server), time.monotonic(), 0.0
    with (scratch / "out").open("w+") as out:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=out, start_new_session=True)
        try:
            while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
                if time.monotonic() - begun > LONGEST_S:
                    sys.exit(f"{method.name} has not ended in {LONGEST_S} s")
                peak = max(peak, proportional_memory(process.pid))
                time.sleep(0.2)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        _, status, used = ended
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said = out.read()
    if process.returncode:
        sys.exit(f"{method.name} ended with {process.returncode}:\n{said[-3000:]}")
    last = said.strip().splitlines()[-1]
    work = json.loads(last) if last.startswith("{") else {"cpu_s": 0.0, "wall_s": 0.0}
    return Spent(
        whole_s=used.ru_utime + used.ru_stime,
        work_s=work["cpu_s"],
        work_wall_s=work["wall_s"],
        peak_mib=max(peak, used.ru_maxrss / 1024),
        server_s=cpu_of(server) - before,
    )


def cpu_of(pid: int) -> float:
    """CPU-seconds of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


@contextmanager
def serving(scratch: Path) -> Iterator[tuple[str, int]]:
    """The server, compiled and running: its address and process id."""
    compiler = shutil.which("cc")
    if compiler is None:
        sys.exit("gateway: there is no C compiler `cc`, and the server is in C (Debian: apt-get install gcc libc6-dev)")
    program = scratch / "instant_server"
    subprocess.run([compiler, "-O2", "-o", program, HERE / "instant_server.c"], check=True)
    with subprocess.Popen([program, MODEL], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1", process.pid
        finally:
            process.kill()


def workspace(place: Path, url: str, rows: int, parts: int = 1) -> Path:
    """All that generate reads, made by the stages before it."""
    place.mkdir()
    run = {"executor": "inline", "endpoints": {"teacher": {"url": url, "concurrency": IN_FLIGHT}}}
    params = {"run": run, **PARAMS, "ingest": {name: {**entry, "parts": parts} for name, entry in POOLS.items()}}
    # JSON is YAML.
    (place / "params.yaml").write_text(json.dumps(params), "utf-8")
    (place / "train.jsonl").write_text("".join(json.dumps({"prompt": prompt(i)}) + "\n" for i in range(rows)), "utf-8")
    for step in ("plan", "acquire teacher", "ingest tasks", "ingest held_out", "curate train"):
        command = [str(OWN), "-m", "pipeline", *step.split()]
        done = subprocess.run(command, cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
        if done.returncode:
            sys.exit(f"gateway: {step} ended with {done.returncode}:\n{done.stderr.decode()}")
    return place


def methods(url: str, scratch: Path, rows: int, few: int) -> dict[str, list[Method]]:
    """What is run in each round: `work` on many rows, `whole` processes on few, and `memory` on more."""
    prepared: dict[tuple[int, int], Path] = {}

    def client(name: str, python: Path, method: str, count: int, *more: int) -> Method:
        command = [str(python), str(CLIENT), method, url, str(count), *map(str, more)]
        return Method(name, count, lambda place: (command, place))

    def ours(name: str, count: int, parts: int, *, by_hand: bool = False) -> Method:
        if (count, parts) not in prepared:
            prepared[count, parts] = workspace(scratch / f"{count}-{parts}", url, count, parts)

        def start(place: Path) -> tuple[list[str], Path]:
            fresh = shutil.copytree(prepared[count, parts], place / "workspace")
            own = ["-m", "pipeline", "generate", "teacher"] if by_hand else [str(CLIENT), "ours", url, str(count)]
            return [str(OWN), *own], fresh

        return Method(name, count, start)

    return {
        "work": [
            client("raw sockets, nothing read but the content", OWN, "raw", rows),
            client("aiohttp and orjson, bare", OWN, "bare", rows),
            ours("ours", rows, 1),
            client("AsyncOpenAI, bare", PEERS, "openai", rows),
        ],
        "whole": [
            ours("ours, `python -m pipeline generate`", few, 1, by_hand=True),
            client("distilabel, batch 500", PEERS, "distilabel", few, 500),
            client("Curator, its cache on", CURATOR, "curator", few),
        ],
        # Once: it hardly varies.
        "memory": [
            ours("ours, one part", 4 * rows, 1),
            ours("ours, four parts", 4 * rows, 4),
        ],
    }


def rows_of(group: list[Method], ours: Method, *, whole: bool) -> list[dict[str, Any]]:
    """The result's rows: medians, and the median of each round's ratio to ours."""
    cpu = (lambda s: s.whole_s) if whole else (lambda s: s.work_s)
    return [
        {
            "method": method.name,
            "rows": method.rows,
            "measured": "process" if whole else "work",
            "cpu_s": round(median(cpu(s) for s in method.spent), 3),
            "us_per_row": round(median(cpu(s) for s in method.spent) / method.rows * 1e6),
            "ratio": round(
                median(
                    cpu(s) / method.rows / (cpu(o) / ours.rows) for s, o in zip(method.spent, ours.spent, strict=False)
                ),
                2,
            ),
            "peak_rss_mib": round(median(s.peak_mib for s in method.spent)),
        }
        for method in group
    ]


def goal(text: str, reached: float, *, most: float | None = None, least: float | None = None) -> dict[str, object]:
    met = (most is None or reached <= most) and (least is None or reached >= least)
    return {"goal": text, "reached": round(reached, 2), "met": met}


def versions() -> dict[str, str]:
    """The packages that were compared, each in its environment."""
    say = "import sys, importlib.metadata as m; print(*(f'{n}={m.version(n)}' for n in sys.argv[1:]))"
    found = {"python": sys.version.split()[0]}
    for python, names in (
        (OWN, "aiohttp orjson pyarrow"),
        (PEERS, "openai distilabel"),
        (CURATOR, "bespokelabs-curator"),
    ):
        listed = subprocess.run([python, "-c", say, *names.split()], capture_output=True, check=True, text=True).stdout
        found |= dict(pair.split("=", 1) for pair in listed.split())
    return found


def machine() -> str:
    """Cores and processor."""
    name = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{os.cpu_count()} cores, {name[1] if name else 'unknown'}"


def commit() -> str:
    """The commit measured, marked where the package had changes that it does not hold."""
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=ROOT, env=env, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+changes" if git("status", "--porcelain", "pipeline") else "")


def main() -> None:
    """Measure, write the result, say whether the goals are met."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rounds", type=int, default=3)
    top.add_argument("--rows", type=int, default=10_000)
    top.add_argument("--few", type=int, default=2_000, help="rows of the whole processes")
    top.add_argument("--only", nargs="*", help="run only methods that begin with one of these; writes no result")
    top.add_argument("--out", type=Path, default=RESULT)
    given = top.parse_args()
    for python in (PEERS, CURATOR):
        if not python.exists() and not given.only:
            sys.exit(f"gateway: {python.relative_to(ROOT)} is missing; `make bench-peers` makes it")

    with tempfile.TemporaryDirectory() as temporary, serving(Path(temporary)) as (url, server):
        scratch = Path(temporary)
        groups = methods(url, scratch, given.rows, given.few)
        for number in range(given.rounds):
            for method in (m for group in groups.values() for m in group):
                once = number > 0 and method in groups["memory"]
                if once or (given.only and not method.name.startswith(tuple(given.only))):
                    continue
                place = scratch / "run"
                place.mkdir()
                spent = measured(method, server, place)
                method.spent.append(spent)
                shutil.rmtree(place)
                used = (
                    f"{spent.work_s:.2f} cpu s of work, {spent.whole_s:.2f} of all, {spent.server_s:.2f} of the server"
                )
                print(f"{number + 1} {method.name}, {method.rows} rows: {used}, {spent.peak_mib:.0f} MiB", flush=True)
    if given.only:
        return
    given.out.write_text(json.dumps(result(groups, given.rounds), indent=1) + "\n", "utf-8")


def result(groups: dict[str, list[Method]], rounds: int) -> dict[str, object]:
    """What the rounds say."""
    raw, bare, ours, _ = groups["work"]
    work = rows_of(groups["work"], ours, whole=False)
    whole = rows_of(groups["whole"], groups["whole"][0], whole=True)
    memory = rows_of([ours, *groups["memory"]], ours, whole=True)
    over_bare = median(o.work_s / b.work_s for o, b in zip(ours.spent, bare.spent, strict=True))
    parts = memory[2]["peak_rss_mib"] / memory[0]["peak_rss_mib"]
    server = median(s.server_s for s in ours.spent) / ours.rows * 1e6
    rate = median(raw.rows / s.work_wall_s for s in raw.spent)
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": versions(),
        "rounds": rounds,
        "rows": [*work, *whole, *memory],
        "goals": [
            goal("ours at most 2.0 x bare aiohttp, CPU of the work", over_bare, most=2.0),
            goal("AsyncOpenAI at least 6 x ours, CPU of the work", work[3]["ratio"], least=6),
            goal("distilabel at least 6 x ours, CPU of the process", whole[1]["ratio"], least=6),
            goal("Curator at least 5 x ours, CPU of the process", whole[2]["ratio"], least=5),
            goal("four times the rows, in four parts: at most 1.25 x the peak memory", parts, most=1.25),
        ],
        "notes": [
            "`work` leaves the start and the imports out, `process` is the whole process with its children. `ratio` is "
            "CPU per row over that of our row with as much in it, the median of the rounds' ratios.",
            f"The server spent {server:.0f} us of CPU on a row of ours, and raw sockets in Python got {rate:,.0f} rows "
            "a second out of it: it limits no client here.",
            "What a process holds grows with the rows of a part (requests, answers and the rows of the table), so a "
            "large pool is cut with `parts`.",
        ],
    }


if __name__ == "__main__":
    main()
