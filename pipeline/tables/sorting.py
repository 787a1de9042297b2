"""Rows in the order of some columns, however many there are: sorted in runs, which lie in a file and are merged.

What does not fit one run is held one run at a time, and then as much of all runs together: what lies between two keys.
"""

from __future__ import annotations

import mmap
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# A run has no more rows, and ends with the batch that makes it so large.
RUN_ROWS, RUN_BYTES = 1 << 20, 1 << 25
# Keys of a run that are looked at to cut all runs.
LOOKED_AT = 64
# Where a row came, which decides between equal ones; no table has a column of this name.
CAME = "#"


def in_order(batches: Iterable[pa.RecordBatch], by: Sequence[str], folder: Path) -> Iterator[pa.Table]:
    """All rows ascending by some columns, equal ones as they came: one table, or several where they are many.

    The file is made in `folder`, and is gone when all is read.
    """
    runs = _runs(batches)
    first, second = next(runs, None), next(runs, None)
    if first is not None and second is None:
        yield ordered(first, by)
    if first is None or second is None:
        return
    runs = chain((first, second), runs)
    del first, second
    with tempfile.TemporaryDirectory(dir=folder) as place:
        file, by = Path(place) / "runs.arrow", [*by, CAME]
        _lay(runs, by, file)
        with file.open("rb") as laid:
            mapped = mmap.mmap(laid.fileno(), 0, access=mmap.ACCESS_READ)
        reader = pa.ipc.open_file(pa.py_buffer(mapped))
        laid_runs = [_Run(reader.get_batch(i), by) for i in range(reader.num_record_batches)]
        for bound in _bounds(laid_runs):
            pieces = pa.Table.from_batches([run.until(bound) for run in laid_runs])
            yield ordered(pieces, by).drop_columns(CAME)
            # What was read is the file's again, and no memory that this process has.
            mapped.madvise(mmap.MADV_DONTNEED)


def ordered(rows: pa.Table, by: Sequence[str]) -> pa.Table:
    """The rows ascending by some columns, equal ones as they come."""
    if len(by) == 1 and _ascends(rows[by[0]]):
        return rows
    rows = rows.combine_chunks()
    return rows.take(pc.sort_indices(rows, [(name, "ascending") for name in by]))


def cut(tables: Iterable[pa.Table], size: int, within: str | None = None) -> Iterator[pa.Table]:
    """The same rows in tables of `size` rows, the last of what is left; or of at least as many, so that rows of one
    value in the column `within`, which lie together, stay together."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        while sum(map(len, waiting)) >= size:
            rows = pa.concat_tables(waiting)
            end = size if within is None else pc.index(rows[within], rows[within][-1]).as_py()
            if end < size and within is not None:
                break
            yield rows.slice(0, end)
            waiting = [rows.slice(end)]
    if rest := [table for table in waiting if len(table)]:
        yield pa.concat_tables(rest)


class _Run:
    """A run in its mapped file; its rows are given once."""

    def __init__(self, rows: pa.RecordBatch, by: Sequence[str]) -> None:
        self.rows, self.columns, self.given = rows, [rows[name] for name in by], 0

    def until(self, bound: tuple[Any, ...]) -> pa.RecordBatch:
        """The rows up to a key."""
        start, self.given = self.given, bisect_right(range(len(self.rows)), bound, self.given, key=self.key)
        return self.rows.slice(start, self.given - start)

    def key(self, i: int) -> tuple[Any, ...]:
        return tuple(column[i].as_py() for column in self.columns)


def _bounds(runs: Sequence[_Run]) -> Iterator[tuple[Any, ...]]:
    """Keys between which lie about as many rows as in a run; the last is that of the last row."""
    looked_at = []
    for run in runs:
        count, size = len(run.rows), run.rows.nbytes / len(run.rows)
        ends = np.unique(np.linspace(0, count, min(count, LOOKED_AT) + 1, dtype=int)).tolist()
        looked_at += [(run.key(end - 1), end - start, size) for start, end in pairwise(ends)]
    rows = bytes_ = 0
    for key, more, size in sorted(looked_at):
        rows, bytes_ = rows + more, bytes_ + more * size
        if rows >= RUN_ROWS or bytes_ >= RUN_BYTES:
            yield key
            rows = bytes_ = 0
    if rows:
        yield key


def _runs(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows as they came, some at a time."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        for start in range(0, len(batch), RUN_ROWS):
            some = batch.slice(start, RUN_ROWS)
            if waiting and (rows + len(some) > RUN_ROWS or size >= RUN_BYTES):
                yield pa.Table.from_batches(waiting)
                waiting, rows, size = [], 0, 0
            waiting.append(some)
            rows, size = rows + len(some), size + some.nbytes
    if waiting:
        yield pa.Table.from_batches(waiting)


def _lay(runs: Iterable[pa.Table], by: Sequence[str], file: Path) -> None:
    """Write runs to a file, each in its order and in one batch."""
    came, writer = 0, None
    for run in runs:
        run = run.append_column(CAME, pa.array(np.arange(came, came + len(run))))
        writer = writer or pa.ipc.new_file(str(file), run.schema)
        came += len(run)
        writer.write_table(ordered(run, by).combine_chunks())
    assert writer is not None
    writer.close()


def _ascends(column: pa.ChunkedArray) -> bool:
    """Whether every value is above the one before."""
    return bool(pc.all(pc.less(column.slice(0, max(len(column) - 1, 0)), column.slice(1)), min_count=0).as_py())
