"""What choosing among vectors that fit no memory costs: CPU and memory of `select` with k-centre on a million of 384.

    make bench-vectors                                    # ten minutes of one core, 6 GB of disk
    python benchmarks/vectors.py --rows 10000000          # 40 GB of disk, two hours
    python benchmarks/vectors.py --rows 20000 --picks 50 --out /tmp/try.json

Vectors of length 1 in clusters lie in a table of scores, in parts of 50,000, and `select` runs as the driver runs it,
with `diversity.k_center` over `embed.vector`. Private is memory that belongs to no file (RssAnon), of the process that
chooses and of the child that evaluates SQL, the larger of both; resident counts mapped pages too (VmHWM), which the
system takes back where it needs them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gateway import commit, goal, machine
from scale import private

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "vectors.json"
WIDTH, IN_PART, CLUSTERS = 384, 50_000, 10_000
ANSWERS, EMBED = "responses/train/teacher", "scores/responses/train/embed"


def make(data: Path, part: int, rows: int) -> None:
    """A part of answers and of their vectors."""
    import numpy as np
    import pyarrow as pa

    from pipeline.contracts import RESPONSES, SCORES, Table
    from pipeline.tables import ids, parquet

    draw = np.random.default_rng(part)
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, WIDTH), dtype=np.float32)
    # Ids of prompts begin with their part.
    prompts = pa.array([f"{part:08x}{ids.digest(part, i)[8:]}" for i in range(rows)])
    names = pa.array([ids.digest("response", part, i) for i in range(rows)])

    def write(table: Table, folder: str, **given: Any) -> None:
        same = {"messages": [{"role": "user", "content": "?"}], "finish_reason": "stop", "quantities": []}
        for field in table.schema:
            if not field.nullable and field.name not in given:
                value = same.get(field.name, "same" if field.type == pa.string() else 1)
                given[field.name] = pa.array([value] * len(given["prompt_id"]), field.type)
        (data / folder).mkdir(parents=True, exist_ok=True)
        parquet.write_part(table, data / folder, part, [table.batch(**given)])

    write(
        RESPONSES,
        ANSWERS,
        response_id=names,
        prompt_id=prompts,
        content=prompts,
        completion_tokens=pa.array([1] * rows),
    )
    points = centres[draw.integers(0, CLUSTERS, rows)] + 0.7 * draw.standard_normal((rows, WIDTH), dtype=np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    offsets = np.arange(0, points.size + 1, WIDTH, dtype=np.int32)
    write(
        SCORES,
        EMBED,
        response_id=names,
        prompt_id=prompts,
        vector=pa.ListArray.from_arrays(offsets, pa.array(points.ravel())),
    )


def work(data: Path, picks: int) -> None:
    """Choose."""
    from pipeline.core.driver import run_instance
    from pipeline.core.settings import RunSettings
    from pipeline.core.stage import Instance, stage_named

    given = {"of": "responses/train", "use": "diversity.k_center", "vector": "embed.vector", "budget_rows": picks}
    inputs = {"responses": (ANSWERS,), "scores": (EMBED,), "gates": (), "gaps": ()}
    params = stage_named("select").params.model_validate({**given, "seed": 17})
    run_instance(
        Instance("select", "far", params, inputs, "selections/responses/train/far", ""),
        RunSettings(query_s=3600),
        data,
        data,
    )
    print(json.dumps({"resident_mib": round(resident(os.getpid()))}))


def resident(pid: int) -> float:
    """The most that a process has had in memory, mapped pages included, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def measure(data: Path, picks: int) -> dict[str, float]:
    """A process that chooses."""
    command = [sys.executable, __file__, "--work", str(data), "--picks", str(picks)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    highest = 0
    while not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        highest = max(highest, private(child.pid))
        time.sleep(0.1)
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"vectors: the stage ended with {status}")
    return {"cpu_s": used.ru_utime + used.ru_stime, "private_mib": highest / 2**20, **json.loads(printed)}


def main() -> None:
    """Measure and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--rows", type=int, default=1_000_000)
    top.add_argument("--picks", type=int, default=1_000)
    top.add_argument("--out", type=Path, default=RESULT)
    top.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = top.parse_args()
    if given.work:
        work(given.work, given.picks)
        return
    with tempfile.TemporaryDirectory() as temporary:
        for part in range(-(-given.rows // IN_PART)):
            rows = min(IN_PART, given.rows - part * IN_PART)
            making = multiprocessing.Process(target=make, args=(Path(temporary), part, rows))
            making.start()
            making.join()
        said = measure(Path(temporary), given.picks)
    print(said)
    whole = given.rows * WIDTH * 4 / 2**20
    row = {
        "method": "k-centre",
        "vectors": given.rows,
        "picks": given.picks,
        "vectors_mib": round(whole),
        "private_mib": round(said["private_mib"]),
        "ratio": round(said["private_mib"] / whole, 2),
        "bytes_a_vector": round(said["private_mib"] * 2**20 / given.rows),
        "resident_mib": said["resident_mib"],
        "cpu_s": round(said["cpu_s"], 1),
    }
    found = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "commit": commit(),
        "versions": {
            "python": sys.version.split()[0],
            **{name: version(name) for name in ("pyarrow", "duckdb", "numpy")},
        },
        "rounds": 1,
        "rows": [row],
        "goals": [goal("at most 2 GiB of private memory", said["private_mib"] / 1024, most=2)],
        "notes": ["`ratio` is private memory over the size of the vectors."],
    }
    given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
