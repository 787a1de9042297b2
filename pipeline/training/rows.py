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
from pipeline.tables import ids
from pipeline.tables.compact import plain
from pipeline.tables.lists import lengths, values
from pipeline.tables.parquet import Scan

# Bytes of a record batch, about, and its rows at most; taking a row touches its batch alone.
BATCH_BYTES = 1 << 20
BATCH_ROWS = 1024
# Columns that no step looks at, but a feed's.
BESIDE = {"template_hash", "tokenizer_hash", "teacher_id", "response_ids", "domain", "verifier", "reference", "rank"}

# What is said of a row's last answer alone.
OF_LAST = ("verifier", "reference", "reward")


class Rows:
    """A table of examples or signals in the order of their ids, however it is cut into parts."""

    def __init__(self, file: Path, dropped: int = 0) -> None:
        self.dropped, self.file = dropped, file
        self.reader = self._opened()
        self.schema = self.reader.schema
        # The first row of each batch, and the end.
        self.starts = np.cumsum([0, *(batch.num_rows for batch in self._batches())])
        # Half of an id decides: 64 bits do not meet by chance.
        self.order = np.argsort(self._ids("example_id", ids.ID_BYTES), kind="stable")

    @classmethod
    def of(cls, scan: Scan, file: Path, columns: int | None = None, *, drop: bool = False) -> Rows:
        """Write the rows of a scan to one file, checked, and map it; `columns` is how many outcomes the student has.

        With `drop` rows whose log-probabilities are no numbers are left out, and counted, where they are refused else.
        """
        written = 0
        with pa.ipc.new_file(str(file), scan.table.schema) as writer:
            for batch in _checked(scan, columns, drop):
                writer.write_batch(batch)
                written += len(batch)
        return cls(file, scan.count() - written)

    def __len__(self) -> int:
        return len(self.order)

    def _opened(self, columns: list[int] | None = None) -> pa.RecordBatchFileReader:
        options = pa.ipc.IpcReadOptions(included_fields=columns)
        return pa.ipc.open_file(pa.memory_map(str(self.file)), options=options)

    @cached_property
    def lean(self) -> pa.RecordBatchFileReader:
        """The file without what no step looks at."""
        return self._opened([i for i, name in enumerate(self.schema.names) if name not in BESIDE])

    def take(self, numbers: Sequence[int] | np.ndarray, *, lean: bool = False) -> pa.Table:
        """Some rows, by their numbers, in this order; with `lean` without what no step looks at."""
        reader = self.lean if lean else self.reader
        place = self.order[np.asarray(numbers)]
        batch = np.searchsorted(self.starts[1:], place, side="right")
        offset = place - self.starts[batch]
        at = {i: reader.get_batch(i) for i in set(batch.tolist())}
        # A slice costs nothing, and all are copied together once; `take` would cost ten times as much.
        pieces = [at[i].slice(start, 1) for i, start in zip(batch.tolist(), offset.tolist(), strict=True)]
        return pa.Table.from_batches(pieces, reader.schema).combine_chunks()

    @cached_property
    def prompt_ids(self) -> np.ndarray:
        """The prompt that each row answers, in their order."""
        return self._ids("prompt_id")[self.order]

    @cached_property
    def ranks(self) -> np.ndarray | None:
        """The rank of each row, -1 where it has none, in their order; nothing if the file has no ranks."""
        if "rank" not in self.schema.names:
            return None
        ranks = [batch["rank"].fill_null(-1).to_numpy() for batch in self._batches()]
        return np.concatenate(ranks)[self.order]

    def _ids(self, column: str, letters: int = 2 * ids.ID_BYTES) -> np.ndarray:
        """The first letters of a column of ids, as they lie in the file."""
        found = np.empty(self.starts[-1], f"S{letters}")
        for start, batch in zip(self.starts, self._batches(), strict=False):
            found[start : start + batch.num_rows] = batch[column].cast(pa.binary()).to_numpy(zero_copy_only=False)
        return found

    def _batches(self) -> Iterator[pa.RecordBatch]:
        """One after another: held together, their descriptions alone would grow with the rows."""
        return (self.reader.get_batch(i) for i in range(self.reader.num_record_batches))


def by_answer(rows: pa.Table, every: bool) -> pa.Table:
    """Rows of one answer each, with which it ends: the last of every row, or a row for each that is learnt there.

    The verifier and the reference of a row are those of its last answer.
    """
    if (lengths(rows["spans"].combine_chunks()) == 1).all():
        return rows
    made = []
    for row in rows.to_pylist():
        *earlier, last = row["spans"]
        for span in earlier if every else ():
            name = ids.digest("answer", row["example_id"], span["start"])
            cut = {"example_id": name, "token_ids": row["token_ids"][: span["end"]], "spans": [span]}
            made.append(row | cut | dict.fromkeys(OF_LAST))
        made.append(row | {"spans": [last]})
    return pa.Table.from_pylist(made, rows.schema)


def _checked(scan: Scan, columns: int | None, drop: bool) -> Iterator[pa.RecordBatch]:
    """Every row that can be trained on; refuses one that cannot, by file and example, or leaves it out."""
    stored: dict[str, str] = {}
    for file in scan.files:
        # Read as a stream, in one thread: a group of rows may be larger than memory.
        reader = pq.ParquetFile(file, memory_map=True, buffer_size=1 << 16)
        groups = [reader.metadata.row_group(i) for i in range(reader.num_row_groups)]
        row_bytes = sum(group.total_byte_size for group in groups) // max(1, reader.metadata.num_rows)
        rows = min(BATCH_ROWS, 1 + BATCH_BYTES // max(1, row_bytes))
        for batch in reader.iter_batches(rows, columns=scan.table.schema.names, use_threads=False):
            batch = plain(batch.cast(scan.table.schema))
            for column, why, remedy in FAULTS:
                if column in batch.schema.names:
                    bad = why(batch, columns)
                    if bad.any() and drop and column in NUMBERS:
                        batch = batch.filter(pa.array(~bad))
                    elif bad.any():
                        example = batch["example_id"][int(bad.argmax())].as_py()
                        raise Refused(f"{file}: example {example} {remedy}")
            for what, found in _stored(batch):
                if any(one != stored.setdefault(what, one) for one in found):
                    raise Refused(
                        f"{file}: its rows store {', '.join(found)} {what}, and those before it {stored[what]}. Probe "
                        f"all of them with one `top_k` and the same temperatures, or train on one of the tables."
                    )
            yield batch


def _stored(batch: pa.RecordBatch) -> Iterator[tuple[str, list[str]]]:
    """What all signals that are trained on together have in common, and which of it a batch has."""
    if "topk_ids" not in batch.schema.names or not len(batch):
        return
    yield "outcomes a place", [str(width) for width in np.unique(lengths(values(batch["topk_ids"])))]
    yield "as their temperature", [f"{t:g}" for t in np.unique(batch["temperature"].to_numpy())]
    tempered = batch["tempered"].fill_null([])
    further = np.split(values(tempered).field("temperature").to_numpy(), np.cumsum(lengths(tempered))[:-1])
    yield "as further temperatures", sorted({" and ".join(f"{t:g}" for t in each) or "none" for each in further})


def _no_place(batch: pa.RecordBatch, columns: int | None) -> np.ndarray:
    spans = batch["spans"]
    inner = values(spans)
    sizes = inner.field("end").to_numpy() - inner.field("start").to_numpy()
    return np.bincount(_row_of(spans), sizes, minlength=len(spans)) <= 0


def _infinite(column: str) -> Callable[[pa.RecordBatch, int | None], np.ndarray]:
    return lambda batch, columns: _rows_of(batch[column], lambda numbers: ~np.isfinite(numbers))


def _beyond(batch: pa.RecordBatch, columns: int | None) -> np.ndarray:
    return _rows_of(batch["topk_ids"], lambda ids: (ids < 0) | (ids >= (columns or 1 << 31)))


def _rows_of(array: pa.Array, wrong: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Which rows of a column of lists, or of lists of lists, have a number that is wrong."""
    ends = array.offsets.to_numpy() - array.offsets[0].as_py()
    inner = values(array)
    while pa.types.is_list(inner.type):
        ends = (inner.offsets.to_numpy() - inner.offsets[0].as_py())[ends]
        inner = values(inner)
    found = np.flatnonzero(wrong(inner.to_numpy(zero_copy_only=False)))
    return np.bincount(np.searchsorted(ends, found, side="right") - 1, minlength=len(array)) > 0


def _row_of(array: pa.ListArray) -> np.ndarray:
    """The row of each of the values of a column of lists."""
    return np.repeat(np.arange(len(array)), lengths(array))


# The columns of which a row may be left out: what the teacher said there is no number.
NUMBERS = ("topk_logprobs", "tail_mass", "target_logprob")
OVERFLOW = "Probe again (a teacher in half precision may overflow), or say `on_bad_row: drop`."
# Column, which rows are at fault, and what to say of one.
FAULTS: tuple[tuple[str, Callable[[pa.RecordBatch, int | None], np.ndarray], str], ...] = (
    ("spans", _no_place, "has no place that is learnt: its spans are empty. Pack it again, or take it out."),
    ("topk_logprobs", _infinite("topk_logprobs"), f"stores NaN or infinite log-probabilities. {OVERFLOW}"),
    ("tail_mass", _infinite("tail_mass"), f"stores a tail mass that is NaN or infinite. {OVERFLOW}"),
    ("target_logprob", _infinite("target_logprob"), f"stores a target's log-probability that is no number. {OVERFLOW}"),
    (
        "topk_ids",
        _beyond,
        "stores outcomes that the student does not have, so its teacher has another vocabulary. Use a teacher of the "
        "same vocabulary, or train on the examples with supervised.cross_entropy.",
    ),
)
