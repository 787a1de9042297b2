"""A pickle runs programs when it is read: none is read but from another process of the same run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
READS = re.compile(
    r"\bc?pickle\.loads?\(|\bUnpickler\(|allow_pickle=True|weights_only=False|\b(dill|cloudpickle|joblib)\b"
)
# Module -> who wrote what it reads.
READ = {
    "pipeline/executors/messenger.py": "a worker of this run, through Ray",
    "pipeline/executors/ray.py": "a worker of this run, through Ray",
    "pipeline/executors/slot.py": "the same process, a line before",
    "pipeline/model/engine.py": "the parent or the child that it started, over a pipe",
    "pipeline/training/ranks.py": "a rank that it forked, in a folder of this user alone",
}


def test_what_is_unpickled_was_written_by_this_run() -> None:
    files = [file for room in ("pipeline", "flows") for file in (ROOT / room).rglob("*.py")]
    found = {file.relative_to(ROOT).as_posix() for file in files if READS.search(file.read_text("utf-8"))}
    assert found == READ.keys()
