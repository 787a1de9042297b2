"""What a row costs: CPU and private memory of the stages that look at all rows, beside commit 8deb148, from two sizes.

    make bench-scale                                            # twenty minutes of one core
    python benchmarks/scale.py --rows 10000000 --alone --out /tmp/large.json    # ours alone; an hour, 30 GB of disk
    python benchmarks/scale.py --rows 20000 --stages select --out /tmp/try.json

Each stage runs as the driver runs it, a process a measurement, on tables of four parts (`scale_work.py`): answers of
200 characters, eight a prompt and one of another model, are voted on, checked, compared by domain, selected and packed,
and told of in a report; as many prompts of 10 to 30 words are read from a file, and held against each other and against
1,000 of a benchmark; an eighth as many are answered eight times, and answered again from the memo, which is measured.
CPU is that of the process and its children, with start and imports; `us_a_row` and `bytes_a_row` are what the larger
size took more, by row, so that start and imports are out of them. Private memory is what belongs to no file
(`Pss_Anon`), of all processes together, looked at every twenty milliseconds; pages of a mapped file can be given back
at any time. Resident (VmHWM) counts these, too. A row is an answer of the teacher; of ingest and curate it is a prompt.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from gateway import commit, goal, machine
from scale_work import SAMPLES, WORK

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "scale.json"
BEFORE = "8deb148"
# Stage -> the most of the former CPU a row, and of bytes.
CPU = {"quality": 0.6, "pack": 0.6, "ingest": 0.6, "select": 0.6, "generate": 0.5}
BYTES = dict.fromkeys(("quality", "gaps", "select", "report", "ingest"), 40)
RESIDENT_MIB = 4096
# Size -> what a stage took; none where it failed.
Found = dict[str, dict[str, float] | None]


def measure(tree: Path, stage: str, data: Path, *more: str) -> dict[str, float] | None:
    """A process that does the work: its CPU, and its most memory; none where it fails."""
    command = [sys.executable, str(HERE / "scale_work.py"), stage, str(data), *more]
    env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    highest = 0
    while not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        highest = max(highest, private(child.pid))
        time.sleep(0.02)
    assert child.stdout is not None and child.stderr is not None
    printed, told = child.stdout.read(), child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        print(stage, "failed:", told[-500:], file=sys.stderr)
        return None
    resident = json.loads(printed)["resident_mib"] if printed else 0
    return {"cpu_s": used.ru_utime + used.ru_stime, "mib": highest / 2**20, "resident_mib": resident}


def private(pid: int) -> int:
    """Bytes of a process and its children that belong to no file; what they share counts once."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    own = next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss_Anon:")), 0)
    return own * 1024 + sum(private(int(one)) for one in children)


def slope(found: Found, few: int, many: int, of: str, unit: float) -> float | None:
    """What a row more took."""
    less, more = found["few"], found["many"]
    return None if less is None or more is None else (more[of] - less[of]) * unit / (many - few)


def result(
    said: dict[tuple[str, str], dict[str, dict[str, float] | None]], given: argparse.Namespace
) -> dict[str, object]:
    """What the measurements say."""
    few, many = given.rows // 8, given.rows
    rows, goals = [], []
    for stage in given.stages:
        for tree in ("ours", BEFORE):
            if (stage, tree) not in said:
                continue
            found, ours, most = said[stage, tree], said[stage, "ours"], said[stage, tree]["many"]
            cpu, memory = slope(found, few, many, "cpu_s", 1e6), slope(found, few, many, "mib", 2**20)
            own = slope(ours, few, many, "cpu_s", 1e6)
            rows.append(
                {
                    "method": stage,
                    "of": tree,
                    "cpu_s": None if most is None else round(most["cpu_s"], 2),
                    "us_a_row": None if cpu is None else round(cpu, 2),
                    "ratio": None if not cpu or own is None else round(own / cpu, 2),
                    "private_mib": None if most is None else round(most["mib"]),
                    "bytes_a_row": None if memory is None else round(memory),
                    "resident_mib": None if most is None else most["resident_mib"],
                }
            )
            if tree != "ours" and stage in CPU and cpu and own is not None:
                goals.append(goal(f"{stage}: at most {CPU[stage]} of the former CPU a row", own / cpu, most=CPU[stage]))
            if tree == "ours" and stage in BYTES and memory is not None:
                goals.append(goal(f"{stage}: at most {BYTES[stage]} bytes a row", memory, most=BYTES[stage]))
            if tree == "ours":
                reached = float("inf") if most is None else most["resident_mib"]
                goals.append(goal(f"{stage} ends with at most 4 GiB resident", reached, most=RESIDENT_MIB))
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": {
            "python": sys.version.split()[0],
            **{name: version(name) for name in ("pyarrow", "duckdb", "numpy")},
        },
        "rounds": 1,
        "rows": rows,
        "goals": goals,
        "notes": [f"{many:,} rows, and {few:,} for the slopes. `ratio` is our CPU a row over that of the line."],
    }


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rows", type=int, default=400_000)
    top.add_argument("--stages", nargs="+", default=list(WORK), choices=WORK)
    top.add_argument("--alone", action="store_true", help="without the former commit")
    top.add_argument("--out", type=Path, default=RESULT)
    given = top.parse_args()
    said: dict[tuple[str, str], Found] = {}
    with tempfile.TemporaryDirectory() as temporary:
        trees = {"ours": ROOT}
        if not given.alone:
            trees[BEFORE] = Path(temporary) / BEFORE
            trees[BEFORE].mkdir()
            packed = subprocess.run(["git", "archive", BEFORE], cwd=ROOT, capture_output=True, check=True).stdout
            subprocess.run(["tar", "-x"], cwd=trees[BEFORE], input=packed, check=True)
        for size, rows in (("few", given.rows // 8), ("many", given.rows)):
            for tree, root in trees.items():
                data = Path(temporary) / f"{tree}-{size}" / "data"
                data.mkdir(parents=True)
                measure(root, "make", data, str(rows // SAMPLES * SAMPLES))
            # A stage reads what the one before it wrote, and both trees take turns.
            for stage in WORK:
                for tree, root in trees.items():
                    data = Path(temporary) / f"{tree}-{size}" / "data"
                    if stage == "generate" and stage in given.stages:
                        measure(root, stage, data)
                    found = measure(root, stage, data)
                    said.setdefault((stage, tree), {})[size] = found
                    print(stage, tree, rows, found, flush=True)
    given.out.write_text(json.dumps(result(said, given), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
