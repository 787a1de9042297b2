"""What people said of answers: a table for every writer, so that two of them never touch one file.

A label is in the table before it is said to be: all of a writer's are written anew, to the disk, and put in place by
one rename. Whatever ends a writer leaves the file of before or the new one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from pipeline.contracts import LABELS
from pipeline.errors import Refused
from pipeline.tables.parquet import Scan, part_name, write_part

# By response_id.
Labels = Mapping[str, Mapping[str, Any]]


class Writer:
    """One who labels: a folder of its own, made with its first label."""

    def __init__(self, data: Path) -> None:
        self.data, self.name, self.rows = data, f"w{uuid4().hex[:12]}", list[dict[str, Any]]()

    def say(self, response_id: str, prompt_id: str, good: bool | None, note: str | None) -> None:
        """Add a label; it is on the disk when this returns."""
        said = {"response_id": response_id, "prompt_id": prompt_id, "good": good, "note": note or None}
        rows = [*self.rows, {**said, "said_at": datetime.now(UTC).isoformat(timespec="microseconds")}]
        fresh, place = self.data / ".tmp" / self.name, self.data / LABELS.name / self.name
        fresh.mkdir(parents=True, exist_ok=True)
        write_part(LABELS, fresh, 0, [LABELS.rows(rows)])
        place.mkdir(parents=True, exist_ok=True)
        _to_disk(fresh / part_name(0))
        (fresh / part_name(0)).replace(place / part_name(0))
        _to_disk(place)
        fresh.rmdir()
        self.rows = rows


def labels_of(data: Path) -> Labels:
    """The label of every response that has one: of what was said of it the last, unless that takes it back."""
    rows: list[dict[str, Any]] = []
    for folder in sorted(file.parent for file in (data / LABELS.name).glob(f"*/{part_name(0)}")):
        try:
            rows += Scan(LABELS, (folder,)).pylist()
        except Refused as error:
            raise Refused(f"{folder} holds labels that cannot be read: restore it from git, or take it away") from error
    last = {row["response_id"]: row for row in sorted(rows, key=lambda row: row["said_at"])}
    return {key: row for key, row in last.items() if row["good"] is not None}


def _to_disk(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
