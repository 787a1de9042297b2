"""Rows in the order of some columns, however many there are: sorted in runs, which lie in a file and are merged.

What does not fit one run is held one run at a time, and then a batch of every run.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# A run has no more rows, and ends with the batch that makes it so large. In runs of 25,000 a vote over a million
# answers took nearly three times the CPU.
RUN_ROWS, RUN_BYTES = 1 << 20, 1 << 25
BATCH_ROWS, BATCH_BYTES = 4096, 1 << 20
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
        counts = _lay(runs, by, file)
        with pa.OSFile(str(file)) as source:
            reader = pa.ipc.open_file(source)
            ends = np.cumsum(counts).tolist()
            waiting = [_Run(reader, range(end - count, end), by) for end, count in zip(ends, counts, strict=True)]
            while waiting:
                bound = min(run.last for run in waiting)
                pieces = [run.until(bound) for run in waiting]
                waiting = [run for run in waiting if len(run.rows)]
                yield ordered(pa.Table.from_batches(pieces), by).drop_columns(CAME)


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
    """What is left of a run, and the batch of it that is in memory."""

    def __init__(self, reader: pa.ipc.RecordBatchFileReader, numbers: range, by: Sequence[str]) -> None:
        self.by = by
        self.batches = (reader.get_batch(i) for i in numbers)
        self._read(next(self.batches))

    def until(self, bound: tuple[Any, ...]) -> pa.RecordBatch:
        """The rows up to a key, which no batch but the one in memory has; they are given once."""
        end = bisect_right(range(len(self.rows)), bound, key=self._key)
        given, rest = self.rows.slice(0, end), self.rows.slice(end)
        self._read(rest if len(rest) else next(self.batches, rest))
        return given

    def _read(self, rows: pa.RecordBatch) -> None:
        self.rows, self.columns = rows, [rows[name] for name in self.by]
        self.last = self._key(-1) if len(rows) else ()

    def _key(self, i: int) -> tuple[Any, ...]:
        return tuple(column[i].as_py() for column in self.columns)


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


def _lay(runs: Iterable[pa.Table], by: Sequence[str], file: Path) -> list[int]:
    """Write runs to a file, each in its order; how many batches each has."""
    counts, came = [], 0
    writer = None
    for run in runs:
        run = run.append_column(CAME, pa.array(np.arange(came, came + len(run))))
        writer = writer or pa.ipc.new_file(str(file), run.schema)
        came += len(run)
        width = 1 + BATCH_BYTES * len(run) // max(1, run.nbytes)
        pieces = ordered(run, by).combine_chunks().to_batches(min(BATCH_ROWS, width))
        for piece in pieces:
            writer.write_batch(piece)
        counts.append(len(pieces))
    assert writer is not None
    writer.close()
    return counts


def _ascends(column: pa.ChunkedArray) -> bool:
    """Whether every value is above the one before."""
    return bool(pc.all(pc.less(column.slice(0, max(len(column) - 1, 0)), column.slice(1)), min_count=0).as_py())
