"""What Prefect costs: CPU of the flow beside `dvc repro` of the same graph, when all is to be made and when nothing is.

    make bench-flow                                       # a quarter of an hour
    PYTHONPATH=. python benchmarks/flow.py --share 0.1 --out /tmp/try.json

The graph is the default one, or one with a share of its rows; both begin from an empty copy of it, with the warm parent
of `make repro` and one instance at a time. Counted is every process that a command starts, Prefect's own server too.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from statistics import median

import yaml
from gateway import commit, goal, machine

from pipeline.plan.reading import load

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "flow.json"
PR_SET_CHILD_SUBREAPER = 36
# How often a round asks what there is to do once there is nothing.
IDLE = 3
BIN = Path(sys.executable).parent
DVC = [str(BIN / "dvc"), "repro"]
FLOW = [sys.executable, "-m", "flows"]
WARM = [sys.executable, "-m", "pipeline", "warm"]


def workspace(place: Path, share: float) -> None:
    """A repository with the default graph, of which nothing was made."""
    for name in ("pipeline", "flows", "data/embedded"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("own", "labels", "watched", "withdrawn"):
        (place / "data" / name).mkdir()
        (place / "data" / name / ".gitkeep").touch()
    for name in ("dvc.yaml", "pyproject.toml", ".gitignore", ".dvcignore"):
        shutil.copyfile(ROOT / name, place / name)
    params = load(ROOT / "params.yaml")
    for entry in params["ingest"].values():
        entry["rows"] = int(entry["rows"] * share)
    for entry in params["select"].values():
        entry["budget_tokens"] = int(entry["budget_tokens"] * share)
    (place / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), "utf-8")
    git = ["git", "-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
    for command in ([*git, "init", "-q"], [DVC[0], "init", "-q"], [*git, "add", "-A"], [*git, "commit", "-qm", "one"]):
        subprocess.run(command, cwd=place, check=True)


def cpu(command: Sequence[str], place: Path, home: Path) -> float:
    """Seconds of CPU of a command and of all that it started, what outlived it included."""
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(place), "PREFECT_HOME": str(home)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"flow: {' '.join(command)} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    with suppress(ChildProcessError):
        while True:
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--share", type=float, default=1.0)
    top.add_argument("--rounds", type=int, default=1)
    top.add_argument("--out", type=Path, default=RESULT)
    given = top.parse_args()
    # What a command leaves running is ours to wait for.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    took: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary) / "prefect"
        for number in range(given.rounds):
            for name, command in (("dvc repro", DVC), ("flow", [*FLOW, "--workers", "1"])):
                place = Path(temporary) / f"{name.replace(' ', '_')}_{number}"
                workspace(place, given.share)
                took.setdefault((name, "all is made"), []).append(cpu([*WARM, *command], place, home))
                idle = DVC if command is DVC else FLOW
                took.setdefault((name, "nothing changed"), []).extend(cpu(idle, place, home) for _ in range(IDLE))
                print(name, {work: times[-1] for (who, work), times in took.items() if who == name}, flush=True)
                instances = len(list((place / "data" / "plan").glob("*/*.json"))) + 1
    ratios = {
        work: median(a / b for a, b in zip(took["flow", work], took["dvc repro", work], strict=True))
        for work in ("all is made", "nothing changed")
    }
    more = median(a - b for a, b in zip(took["flow", "all is made"], took["dvc repro", "all is made"], strict=True))
    found = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in ("prefect", "dvc")}},
        "rounds": given.rounds,
        "rows": [
            {"method": name, "work": work, "cpu_s": round(median(times), 2),
             "ratio": round(ratios[work], 2) if name == "flow" else 1.0}
            for (name, work), times in took.items()
        ],
        "goals": [
            goal("all is made: at most 1.15 x the CPU of `dvc repro`", ratios["all is made"], most=1.15),
            goal("nothing changed: at most 1.2 x the CPU of `dvc repro`", ratios["nothing changed"], most=1.2),
        ],
        "notes": [
            f"The default graph of {instances} instances, with {given.share:g} of its rows and budgets: what Prefect "
            f"costs does not grow with them. It is {more:.1f} s here, {more / instances:.2f} s an instance.",
        ],
    }  # fmt: skip
    given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
