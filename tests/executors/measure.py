"""What parts cost on a Ray cluster of two nodes of one CPU, beside one process and two.

    python -m tests.executors.measure

4.5 million answers in 72 parts are scored by `heuristic.format`. CPU is that of the run and its children, that of the
parts by the record, and that of all else on both nodes, Ray's own processes and imports among it.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from pipeline.contracts import RESPONSES
from pipeline.tables import parquet
from tests.executors.two_nodes import ROOT, Cluster, Place, two_nodes

sys.path.insert(0, str(ROOT / "benchmarks"))
ROWS, OF = 62_500, "responses/train/teacher"


def answers(place: Place, parts: int) -> None:
    """One part of answers, which stands in the place of each: nothing here looks across parts."""
    from scale import answers as some

    folder = place.root / "data" / OF
    parquet.write(RESPONSES, folder, 1, some(ROWS))
    for part in range(1, parts):
        os.link(folder / parquet.part_name(0), folder / parquet.part_name(part))


def nodes_cpu_s(cluster: Cluster) -> float:
    """The CPU of all that runs on both nodes, and of what that has ended."""
    spent = 0.0
    for pid in itertools.chain(*map(cluster.pids, "ab")):
        try:
            spent += sum(psutil.Process(pid).cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return spent


def measured(place: Place, run: dict[str, Any]) -> dict[str, Any]:
    """CPU and wall time of a run."""
    params = yaml.safe_load((place.root / "params.yaml").read_text("utf-8"))
    (place.root / "params.yaml").write_text(yaml.safe_dump(params | {"run": run}), "utf-8")
    before, at, used = nodes_cpu_s(place.cluster), time.monotonic(), os.times()
    place.run("score", "measured")
    wall, spent = time.monotonic() - at, os.times()
    record = json.loads((place.root / "data" / ".runs" / "score" / "measured.json").read_text("utf-8"))
    return {
        "run": run,
        "wall_s": round(wall, 1),
        "run_cpu_s": round(sum(spent[2:4]) - sum(used[2:4]), 1),
        "parts_cpu_s": round(sum(part["cpu_s"] for part in record["parts"]), 1),
        "nodes_cpu_s": round(nodes_cpu_s(place.cluster) - before, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def main(parts: int = 72) -> None:
    """Print one line a run, as JSON."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder, two_nodes(Path(folder)) as both:
        place = Place(Path(folder) / "place", both)
        place.root.mkdir()
        place.make()
        params = yaml.safe_load((place.root / "params.yaml").read_text("utf-8"))
        params["score"] = {"measured": {"of": "responses/train", "use": "heuristic.format"}}
        (place.root / "params.yaml").write_text(yaml.safe_dump(params), "utf-8")
        place.run("plan")
        answers(place, parts)
        ray = {"executor": {"use": "ray.cluster", "address": both.address, "keep_s": 60}}
        for run in ({"executor": "inline"}, {"executor": "processes", "workers": 2}, ray, ray):
            print(json.dumps(measured(place, run)), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
