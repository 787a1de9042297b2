"""Tables on disk: reading parts, writing them byte-stably.

A table is a folder of `part-00000.parquet`, `part-00001.parquet`, ... The part of a row is decided by its prompt_id
(`ids.part_of`), so everything about one prompt lies in one part of every table. A folder of tables (all models'
answers to a pool) reads as one table. SQL over tables is in `tables/sql.py`.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.contracts import TABLES, TENSORS, Table, whole
from pipeline.errors import Refused
from pipeline.tables import ids, sorting

ROW_GROUP = 50_000
# Rows that are read together, and those that a scorer is given together, of so many bytes at most.
BATCH, MANY, HEAVY = 8192, 1 << 20, 1 << 28
# Bytes that a column may have in one array, and those of rows that are written together.
MOST, GROUP_BYTES = (1 << 31) - 1, 1 << 30
UNREADABLE = (OSError, KeyError, pa.ArrowInvalid, pa.ArrowCapacityError, pa.ArrowNotImplementedError)
# The names of a table's parts.
PARTS = "part-*.parquet"
# Columns of numbers that are mostly small (`compact.py`).
SPLIT = ("topk_gaps", "topk_steps")
# The part of a row, while rows of all parts are sorted together.
PART = "#part"
# A cell without its bytes: what ids take of it.
NAMED = pa.list_(pa.struct([f for f in TENSORS.value_type if f.name not in ("data", "uri")]))


def part_name(part: int) -> str:
    return f"part-{part:05d}.parquet"


@dataclass(frozen=True)
class Scan:
    """The rows of one table, or of several with the same schema, or of one part of them."""

    table: Table
    folders: tuple[Path, ...]
    part: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The instance names of the tables, for example the entries that answered."""
        return tuple(folder.name for folder in self.folders)

    @cached_property
    def parts(self) -> int:
        counts = {folder: len(list(folder.glob(PARTS))) for folder in self.folders}
        if len(set(counts.values())) > 1:
            raise Refused(
                f"tables of {self.table.name} have different numbers of parts: "
                + ", ".join(f"{folder} {n}" for folder, n in counts.items())
                + ". The pool's `parts` decides; run the stages that made them again."
            )
        return next(iter(counts.values()), 0)

    @property
    def files(self) -> list[Path]:
        parts = range(self.parts) if self.part is None else [self.part]
        return [folder / part_name(i) for folder in self.folders for i in parts]

    def only(self, name: str) -> Scan:
        """The table of one instance."""
        chosen = tuple(folder for folder in self.folders if folder.name == name)
        if not chosen:
            raise Refused(f"{self.table.name}: no table {name!r} among {', '.join(self.names)}")
        return Scan(self.table, chosen, self.part)

    def at(self, part: int) -> Scan:
        """The same tables, one part."""
        return Scan(self.table, self.folders, part)

    def read(self, columns: Sequence[str] | None = None, *, whole: bool = True) -> pa.Table:
        """All rows, ordered by file, then key; only these columns if given. `whole=False` leaves the bytes of cells of
        arrays where they are."""
        schema = self._schema(columns, whole)
        for column, size in self._sizes(schema).items():
            if size > MOST:
                raise _too_large(self.files[0].parent, f"{column} has {size / 1e9:.1f} GB")
        tables = [_read(file, schema) for file in self.files]
        try:
            return pa.concat_tables(tables).combine_chunks() if tables else schema.empty_table()
        except UNREADABLE as error:
            raise _too_large(self.files[0].parent, str(error)) from error

    def _sizes(self, schema: pa.Schema) -> dict[str, int]:
        """The bytes of every leaf that is read of these columns, unpacked."""
        found: dict[str, int] = {}
        read = [path for field in schema for path in _leaves(field)]
        for metadata in map(_read_metadata, self.files):
            for group in map(metadata.row_group, range(metadata.num_row_groups)):
                for leaf in map(group.column, range(group.num_columns)):
                    path = leaf.path_in_schema
                    if any(f"{path}.".startswith(f"{one}.") for one in read):
                        found[path] = found.get(path, 0) + leaf.total_uncompressed_size
        return found

    def _schema(self, columns: Sequence[str] | None, whole: bool) -> pa.Schema:
        schema = self.table.schema if columns is None else pa.schema([self.table.schema.field(c) for c in columns])
        if whole:
            return schema
        return pa.schema([pa.field(f.name, NAMED, f.nullable) if f.type == TENSORS else f for f in schema])

    def batches(self, columns: Sequence[str], rows: int = BATCH, *, whole: bool = True) -> Iterator[pa.RecordBatch]:
        """The rows of `read`, some at a time."""
        schema = self._schema(columns, whole)
        read = [path for field in schema for path in _leaves(field)]
        for file in self.files:
            try:
                for batch in pq.ParquetFile(file).iter_batches(rows, columns=read):
                    yield batch.select(schema.names).cast(schema)
            except UNREADABLE as error:
                raise _unreadable(file, error) from error

    def by_prompt(self, columns: Sequence[str], scratch: Path) -> Iterator[pa.Table]:
        """The rows of `read`, if they are many in several tables: in the order of prompts, all rows of one together."""
        count, size = self.count(), sum(self._sizes(self._schema(columns, True)).values())
        if count <= MANY and size <= HEAVY:
            yield self.read(columns)
        else:
            pieces = sorting.in_order(self.batches(columns), ["prompt_id"], scratch)
            yield from sorting.cut(pieces, max(1, min(MANY, count * HEAVY // max(size, 1))), "prompt_id")

    def pylist(self, columns: Sequence[str] | None = None) -> list[dict]:
        """All rows as dictionaries."""
        return self.read(columns).to_pylist()

    def count(self) -> int:
        return sum(map(rows_of, self.files))


def _read(file: Path, schema: pa.Schema) -> pa.Table:
    try:
        # ParquetFile and not read_table, which imports pyarrow.dataset and with it pandas.
        columns = [path for field in schema for path in _leaves(field)]
        return pq.ParquetFile(file).read(columns=columns).select(schema.names).cast(schema)
    except UNREADABLE as error:
        raise _unreadable(file, error) from error


def rows_of(file: Path) -> int:
    """The number of rows of a part, by its footer."""
    return _read_metadata(file).num_rows


def _read_metadata(file: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(file)
    except UNREADABLE as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> Refused:
    # What is said once and stands in many rows is larger read than it was written.
    if isinstance(error, pa.ArrowCapacityError | pa.ArrowNotImplementedError) or "overflow" in str(error):
        return _too_large(file, str(error))
    return Refused(f"{file} cannot be read as Parquet ({error}). Delete it and run `dvc repro` again.")


def _too_large(place: Path, what: str) -> Refused:
    return Refused(
        f"{place}: {what}, and 2.1 GB of a column can be read together. Give the pool more `parts`, or cut it in two."
    )


def _leaves(field: pa.Field) -> list[str]:
    """What is read of a column: all of it, or of cells the leaves that are wanted."""
    return [f"{field.name}.list.element.{n}" for n in NAMED.value_type.names] if field.type == NAMED else [field.name]


class RowError(Refused):
    """A stage gave rows that its table does not allow."""


def write(table: Table, folder: Path, parts: int, batches: Iterable[pa.RecordBatch]) -> int:
    """Write rows to a folder of parts, each ordered by key; returns the number of rows.

    The bytes depend on the rows alone: not on their order, nor on how they were cut into batches.
    """
    folder.mkdir(parents=True, exist_ok=True)
    placed = (batch.append_column(PART, _parts_of(batch, parts)) for batch in batches)
    pieces = sorting.in_order(placed, [PART, *table.key], folder)
    # Nothing for every part, so that each has a file.
    nothing = ((part, table.schema.empty_table()) for part in range(parts))
    by_part = heapq.merge(nothing, _by_part(pieces), key=itemgetter(0))
    return sum(
        _write(table, folder / part_name(part), (rows for _, rows in some))
        for part, some in groupby(by_part, itemgetter(0))
    )


def write_part(table: Table, folder: Path, part: int, batches: Iterable[pa.RecordBatch]) -> int:
    """Write one part, ordered by key, with fixed row groups; returns the number of rows."""
    return _write(table, folder / part_name(part), sorting.in_order(batches, table.key, folder))


def _parts_of(batch: pa.RecordBatch, parts: int) -> pa.Array:
    if parts == 1 or "prompt_id" not in batch.schema.names:
        return pa.array(np.zeros(len(batch), np.int32))
    return pa.array(ids.parts_of(batch["prompt_id"], parts), pa.int32())


def _by_part(pieces: Iterable[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
    """Rows in the order of their parts, to a table a part."""
    for piece in pieces:
        parts, starts = np.unique(piece[PART].to_numpy(), return_index=True)
        for part, start, end in zip(parts.tolist(), starts, [*starts[1:], len(piece)], strict=True):
            yield part, piece.slice(start, end - start).drop_columns(PART)


def _write(table: Table, file: Path, pieces: Iterable[pa.Table]) -> int:
    """Write a file of ordered rows; returns their number."""
    written, last = 0, None
    with pq.ParquetWriter(file, table.schema, compression="zstd", **_encodings(table.name)) as writer:
        # One chunk and fixed row groups: the bytes of pyarrow's writer depend on both.
        for rows in (some for group in sorting.cut(pieces, ROW_GROUP) for some in _light(group)):
            rows = _checked(table, rows.combine_chunks(), last)
            writer.write_table(rows, ROW_GROUP)
            written, last = written + len(rows), rows.select(table.key).slice(len(rows) - 1)
        if not written:
            writer.write_table(table.schema.empty_table())
    return written


def _light(rows: pa.Table) -> Iterator[pa.Table]:
    """The rows, in halves of halves where they are too many bytes for one array, as pictures may be."""
    if rows.nbytes <= GROUP_BYTES or len(rows) == 1:
        yield rows
        return
    for half in (rows.slice(0, len(rows) // 2), rows.slice(len(rows) // 2)):
        yield from _light(half)


@functools.cache
def _encodings(table: str) -> dict[str, Any]:
    """How a table's columns are encoded: bytes of like weight together where numbers are gaps or steps."""
    split = [f"{column}.list.element" for column in SPLIT if column in TABLES[table].columns]
    if not split:
        return {}
    nothing = io.BytesIO()
    pq.write_table(TABLES[table].schema.empty_table(), nothing)
    schema = pq.ParquetFile(nothing).schema
    others = [path for i in range(len(schema)) if (path := schema.column(i).path) not in split]
    return {"use_dictionary": others, "column_encoding": dict.fromkeys(split, "BYTE_STREAM_SPLIT")}


def _checked(table: Table, rows: pa.Table, last: pa.Table | None) -> pa.Table:
    """Ordered rows, if their table allows them; `last` is the key of the row before."""
    for name, column in table.columns.items():
        if not column.nullable and rows[name].null_count:
            raise RowError(f"table {table.name}: column {name} must not be null ({rows[name].null_count} rows are)")
        bad = np.flatnonzero(with_nan(whole(rows[name]))).tolist() if _has_floats(column.type) else []
        if bad:
            first = ", ".join(f"{key} {rows[key][bad[0]].as_py()}" for key in table.key)
            raise RowError(
                f"table {table.name}: column {name} holds NaN in {len(bad)} rows, the first with {first}. NaN turns "
                f"rules around (it is above every number); a number that is not there is null."
            )
    keys = pa.concat_tables([*([] if last is None else [last]), rows.select(table.key)])
    same = [pc.equal(keys[name].slice(1), keys[name].slice(0, max(len(keys) - 1, 0))) for name in table.key]
    if pc.any(functools.reduce(pc.and_, same)).as_py():
        raise RowError(f"table {table.name}: two rows share the key {', '.join(table.key)}")
    return rows.cast(table.schema)


def with_nan(array: pa.Array) -> np.ndarray:
    """Which values of a column are NaN, or have one in them at any depth: a bool [rows]."""
    kind = array.type
    if pa.types.is_floating(kind):
        return pc.fill_null(pc.is_nan(array), False).to_numpy(zero_copy_only=False)
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        inner = with_nan(array.items if pa.types.is_map(kind) else array.values)
        if not inner.any():
            return np.zeros(len(array), bool)
        before, offsets = np.concatenate([[0], np.cumsum(inner)]), array.offsets.to_numpy()
        return (before[offsets[1:]] > before[offsets[:-1]]) & array.is_valid().to_numpy(zero_copy_only=False)
    found = np.zeros(len(array), bool)
    for field in array.flatten() if pa.types.is_struct(kind) else ():
        found |= with_nan(field)
    return found


def _has_floats(kind: pa.DataType) -> bool:
    if pa.types.is_map(kind):
        return _has_floats(kind.item_type)
    if pa.types.is_list(kind):
        return _has_floats(kind.value_type)
    return any(_has_floats(field.type) for field in kind) if pa.types.is_struct(kind) else pa.types.is_floating(kind)


def short_hash() -> Any:
    """An empty hash of the length of an id."""
    return hashlib.blake2b(digest_size=ids.ID_BYTES)


def digest(path: Path, algorithm: str | Callable[[], Any] = short_hash) -> str:
    """The hash of a file's bytes, which are read in chunks: weights may be larger than memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def folder_digest(folder: Path, of: Callable[[Path], str] = digest) -> str:
    """A hash of a folder's files: relative names and bytes, or what `of` says of these."""
    total = short_hash()
    for file in walk(folder):
        total.update(str(file.relative_to(folder)).encode())
        total.update(bytes.fromhex(of(file)))
    return total.hexdigest()


def walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, in the order of their names."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


T = TypeVar("T")


def batched(values: Iterable[T], size: int = 1000) -> Iterator[list[T]]:
    """Lists of at most `size` values, in order."""
    waiting = iter(values)
    while batch := list(islice(waiting, size)):
        yield batch
