"""What people said of answers: a table for every writer, so that two of them never touch one file.

A label is in the table before it is said to be: all of a writer's are written anew, to the disk, and put in place by
one rename. Whatever ends a writer leaves the file of before or the new one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
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
        self.data, self.name = data, f"w{uuid4().hex[:12]}"

    def say(self, response_id: str, prompt_id: str, good: bool | None, note: str | None) -> None:
        """Add a label; it is on the disk when this returns."""
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        said = {"response_id": response_id, "prompt_id": prompt_id, "good": good, "note": note or None, "said_at": now}
        own = self.data / LABELS.name / self.name
        before = Scan(LABELS, (own,)).pylist() if (own / part_name(0)).exists() else []
        _write(self.data, self.name, [*before, said])


def forget(data: Path, prompts: Collection[str]) -> int:
    """Remove the labels of answers to these prompts; returns how many went."""
    count = 0
    for folder in sorted(file.parent for file in (data / LABELS.name).glob(f"*/{part_name(0)}")):
        rows = Scan(LABELS, (folder,)).pylist()
        kept = [row for row in rows if row["prompt_id"] not in prompts]
        count += len(rows) - len(kept)
        if len(kept) < len(rows):
            _write(data, folder.name, kept)
    return count


def _write(data: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put all labels of a writer in place at once."""
    fresh, place = data / ".tmp" / name, data / LABELS.name / name
    fresh.mkdir(parents=True, exist_ok=True)
    write_part(LABELS, fresh, 0, [LABELS.rows(rows)])
    place.mkdir(parents=True, exist_ok=True)
    _to_disk(fresh / part_name(0))
    (fresh / part_name(0)).replace(place / part_name(0))
    _to_disk(place)
    fresh.rmdir()


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
