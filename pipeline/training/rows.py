"""The rows that a student is trained on: written once as Arrow, mapped into memory, and never made Python objects.

What a row costs in memory of its own is its id and its place; its tokens and signals are pages of a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import Refused
from pipeline.tables.lists import lengths, values
from pipeline.tables.parquet import Scan

# Rows of a record batch, at most; taking a row touches its batch alone.
BATCH = 1024


class Rows:
    """A table of examples or signals in the order of their ids, however it is cut into parts."""

    def __init__(self, file: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(file)))
        self.batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self.schema = reader.schema
        # The first row of each batch.
        self.starts = np.cumsum([0, *(batch.num_rows for batch in self.batches)])[:-1]
        ids = [
            batch["example_id"].cast(pa.binary()).to_numpy(zero_copy_only=False).astype("S") for batch in self.batches
        ]
        self.order = np.argsort(np.concatenate(ids), kind="stable") if ids else np.empty(0, np.int64)

    @classmethod
    def of(cls, scan: Scan, file: Path, columns: int | None = None) -> Rows:
        """Write the rows of a scan to one file, checked, and map it; `columns` is how many outcomes the student has."""
        with pa.ipc.new_file(str(file), scan.table.schema) as writer:
            for batch in _checked(scan, columns):
                writer.write_batch(batch)
        return cls(file)

    def __len__(self) -> int:
        return len(self.order)

    def take(self, numbers: Sequence[int] | np.ndarray) -> pa.Table:
        """Some rows, by their numbers, in this order."""
        place = self.order[np.asarray(numbers)]
        batch = np.searchsorted(self.starts, place, side="right") - 1
        offset = place - self.starts[batch]
        pieces, places = [], []
        for i in np.unique(batch):
            there = np.flatnonzero(batch == i)
            pieces.append(self.batches[i].take(pa.array(offset[there])))
            places.append(there)
        back = np.argsort(np.concatenate(places), kind="stable")
        return pa.Table.from_batches(pieces, self.schema).combine_chunks().take(pa.array(back))

    @cached_property
    def prompt_ids(self) -> np.ndarray:
        """The prompt that each row answers, in their order."""
        found = [
            batch["prompt_id"].cast(pa.binary()).to_numpy(zero_copy_only=False).astype("S") for batch in self.batches
        ]
        return np.concatenate(found)[self.order] if found else np.empty(0, "S1")


def _checked(scan: Scan, columns: int | None) -> Iterator[pa.RecordBatch]:
    """Every row that can be trained on; refuses one that cannot, by file and example."""
    stored: int | None = None
    for file in scan.files:
        for batch in pq.ParquetFile(file).iter_batches(BATCH, columns=scan.table.schema.names):
            batch = batch.cast(scan.table.schema)
            for column, why, remedy in FAULTS:
                if column in batch.schema.names:
                    bad = why(batch, columns)
                    if bad.any():
                        example = batch["example_id"][int(bad.argmax())].as_py()
                        raise Refused(f"{file}: example {example} {remedy}")
            if "topk_ids" in batch.schema.names:
                widths = np.unique(lengths(values(batch["topk_ids"])))
                stored = int(widths[0]) if stored is None and len(widths) else stored
                if any(width != stored for width in widths):
                    raise Refused(
                        f"{file}: its rows store {', '.join(map(str, widths))} outcomes a place, and those before it "
                        f"{stored}. Probe all of them with one `top_k`, or train on one of the tables."
                    )
            yield batch


def _no_place(batch: pa.RecordBatch, columns: int | None) -> np.ndarray:
    spans = batch["spans"]
    inner = values(spans)
    sizes = inner.field("end").to_numpy() - inner.field("start").to_numpy()
    return np.bincount(_row_of(spans), sizes, minlength=len(spans)) <= 0


def _infinite(column: str, deep: bool = False) -> Callable[[pa.RecordBatch, int | None], np.ndarray]:
    def bad(batch: pa.RecordBatch, columns: int | None) -> np.ndarray:
        outer = batch[column]
        row = _row_of(outer)
        inner = values(outer)
        if deep:
            row, inner = np.repeat(row, lengths(inner)), values(inner)
        wrong = ~np.isfinite(inner.to_numpy(zero_copy_only=False))
        return np.bincount(row[wrong], minlength=len(outer)) > 0

    return bad


def _beyond(batch: pa.RecordBatch, columns: int | None) -> np.ndarray:
    outer = batch["topk_ids"]
    row = np.repeat(_row_of(outer), lengths(values(outer)))
    inner = values(values(outer)).to_numpy()
    wrong = (inner < 0) | (inner >= (columns or 1 << 31))
    return np.bincount(row[wrong], minlength=len(outer)) > 0


def _row_of(array: pa.ListArray) -> np.ndarray:
    """The row of each of the values of a column of lists."""
    return np.repeat(np.arange(len(array)), lengths(array))


OVERFLOW = "Probe again; a teacher in half precision may overflow."
# Column, which rows are at fault, and what to say of one.
FAULTS: tuple[tuple[str, Callable[[pa.RecordBatch, int | None], np.ndarray], str], ...] = (
    ("spans", _no_place, "has no place that is learnt: its spans are empty. Pack it again, or take it out."),
    ("topk_logprobs", _infinite("topk_logprobs", deep=True), f"stores NaN or infinite log-probabilities. {OVERFLOW}"),
    ("tail_mass", _infinite("tail_mass"), f"stores a tail mass that is NaN or infinite. {OVERFLOW}"),
    ("target_logprob", _infinite("target_logprob"), f"stores a target's log-probability that is no number. {OVERFLOW}"),
    (
        "topk_ids",
        _beyond,
        "stores outcomes that the student does not have, so its teacher has another vocabulary. Use a teacher of the "
        "same vocabulary, or train on the examples with supervised.cross_entropy.",
    ),
)
