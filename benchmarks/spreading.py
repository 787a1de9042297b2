"""What a Ray cluster costs on one machine: the wall of the default graph, shrunk, beside one warm process.

    make bench-spreading                                  # ten minutes
    PYTHONPATH=. python benchmarks/spreading.py --share 0.05 --rounds 1 --out /tmp/try.json

The graph is the default one with a share of its rows and budgets. Both ways begin from an empty copy, with the warm
parent of `make repro`, take turns, and give the same bytes; the cluster is one node of as many CPUs as the machine has,
which is there before a round begins.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median

import yaml
from flow import BIN, DVC, WARM, workspace
from gateway import commit, goal, machine

from pipeline.tables.parquet import folder_digest

RESULT = Path(__file__).parent / "results" / "spreading.json"
INLINE, RAY = "one process", "Ray cluster"
MADE = ("responses", "scores", "selections", "examples", "signals", "evals")


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """The address of a cluster of this machine alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={address.split(':')[1]}"]
    ray += ["--node-ip-address=127.0.0.1", f"--num-cpus={os.cpu_count()}", "--include-dashboard=false", "--block"]
    ray += ["--disable-usage-stats", "--object-store-memory=80000000"]
    env = {**os.environ, "RAY_TMPDIR": str(folder), "PYTHONPATH": str(Path(__file__).parents[1])}
    said = folder / "said"
    with said.open("wb") as log:
        node = subprocess.Popen(ray, env=env, stdout=log, stderr=log)
    try:
        while b"Ray runtime started" not in said.read_bytes():
            if node.poll() is not None:
                sys.exit(f"spreading: no cluster: {said.read_text()[-2000:]}")
            time.sleep(0.2)
        yield address
    finally:
        node.terminate()
        node.wait()


def wall(place: Path) -> float:
    """Seconds in which all is made."""
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(place)}
    began = time.monotonic()
    done = subprocess.run([*WARM, *DVC], cwd=place, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"spreading: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.monotonic() - began


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--share", type=float, default=0.1)
    top.add_argument("--rounds", type=int, default=3)
    top.add_argument("--out", type=Path, default=RESULT)
    given = top.parse_args()
    took: dict[str, list[float]] = {INLINE: [], RAY: []}
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as temporary:
        (Path(temporary) / "ray").mkdir()
        with cluster(Path(temporary) / "ray") as address:
            for number in range(given.rounds):
                made = set()
                for name, executor in ((INLINE, "inline"), (RAY, {"use": "ray.cluster", "address": address})):
                    place = Path(temporary) / f"{name.replace(' ', '_')}_{number}"
                    workspace(place, given.share)
                    params = yaml.safe_load((place / "params.yaml").read_text("utf-8"))
                    params["run"]["executor"] = executor
                    (place / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), "utf-8")
                    took[name].append(wall(place))
                    print(name, round(took[name][-1], 1), flush=True)
                    made.add(tuple(folder_digest(place / "data" / folder) for folder in MADE))
                if len(made) > 1:
                    sys.exit("spreading: the cluster gave other bytes than one process")
    ratio = median(b / a for a, b in zip(took[INLINE], took[RAY], strict=True))
    found = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in ("ray", "dvc")}},
        "rounds": given.rounds,
        "rows": [
            {"method": name, "wall_s": round(median(times), 1), "ratio": round(ratio, 2) if name == RAY else 1.0}
            for name, times in took.items()
        ],
        "goals": [goal("the default graph on the cluster: at most 1.3 x the wall of one process", ratio, most=1.3)],
        "notes": [f"The default graph with {given.share:g} of its rows and budgets; the bytes are the same."],
    }
    given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
