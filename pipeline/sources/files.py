"""Prompts from files of the user's own: one, several, or all that a pattern names, packed by gzip or not.

A path is relative to the folder of `params.yaml`; `*`, `?` and `[...]` make it a pattern. What is text in a file stays
text: `NA`, `None` and `007` are what they say.
"""

from __future__ import annotations

import csv as tables
import glob
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.source import BadRow, GivenRow, Rows, source
from pipeline.tables.graphs import Graph, checked, nodes_row
from pipeline.tables.pictures import pixels

SHOWN = 2_000
Paths = str | list[str]
# Of a picture; unset, as many as it has.
Channels = Literal[1, 3] | None
# What may stand between values, beside the comma.
SEPARATORS = ";\t|,"
# How files begin that hold no lines, and what to do with them.
OTHERS = {
    b"PK\x03\x04": "a ZIP archive (or a spreadsheet, which is one); unpack it first",
    b"BZh": "packed by bzip2; unpack it, or pack it by gzip",
    b"\xfd7zXZ": "packed by xz; unpack it, or pack it by gzip",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it, or pack it by gzip",
    b"PAR1": "a Parquet file; read it with `use: files.parquet`",
    b"ARROW1": "an Arrow file; read it with `use: hub.datasets`",
    b"SQLite f": "a database; export the rows as JSON lines",
}


def read_files(given: Mapping[str, Any]) -> list[str]:
    """The files that these arguments name."""
    return files_of(given["path"])


def files_of(path: Paths) -> list[str]:
    """The files that a path, a pattern or a list of these names, in the order of their names; a path or pattern that
    names none stands for itself."""
    return [file for each in ([path] if isinstance(path, str) else path) for file in _matching(each)]


def _matching(path: str) -> list[str]:
    if not glob.has_magic(path):
        return [path]
    top = Path(path).anchor
    return sorted(str(file) for file in Path(top).glob(path.removeprefix(top)) if file.is_file()) or [path]


@source(files=read_files)
def jsonl(*, path: Paths) -> Rows:
    """One JSON object per line; a broken line is a bad row, an empty line is nothing.

    Paper: none.
    Differs: nothing.
    """
    return _each(path, json_lines)


@source(files=read_files)
def json_array(*, path: Paths) -> Rows:
    """A JSON array of objects, numbered from 1.

    Paper: none.
    Differs: nothing.
    """
    return _each(path, array)


@source(files=read_files)
def csv(*, path: Paths, separator: str = ",") -> Rows:
    """Lines of values below a line of names, in UTF-8; every value is text, and an empty one is none.

    Paper: none.
    Differs: nothing.
    """
    return _each(path, lambda file: separated(file, separator))


@source(files=read_files)
def parquet(*, path: Paths) -> Rows:
    """The rows of a Parquet file, numbered from 1.

    Paper: none.
    Differs: nothing.
    """
    return _each(path, columns)


@source(files=read_files, verifiers=())
def arrays(*, path: Paths) -> Rows:
    """The arrays of an NPZ along their first axis: a row has the n-th of each, a number where that is one.

    Paper: none.
    Differs: nothing; `arrays:` says which of them are inputs, and `columns:` which is the reference.
    """
    return _each(path, stacked)


@source(files=read_files, verifiers=("graph.nodes",))
def graph(*, path: Paths, take: Literal["train", "held_out", "all"] = "all", undirected: bool = True) -> Rows:
    """Graphs whose nodes have classes: of an NPZ, or a row of Parquet each. `x` are the nodes' numbers, `edge_index` or
    `edges` two rows of nodes, `y` their classes, and `train_mask` and `test_mask`, if there are any, two kinds of them.

    `held_out` asks about the nodes of `test_mask`, `train` about all others, `all` about every one. The solution names
    the classes of those in `train_mask`, all of them if there is none. With `undirected` an edge goes both ways.

    Paper: none.
    Differs: nothing.
    """
    for file in files_of(path):
        if file.endswith((".pt", ".pkl", ".pickle")):
            raise Refused(f"{file} is a pickle, which may run programs: save x, edge_index and y by `numpy.savez`")
        with _existing(file).open("rb") as content:
            parquet = content.read(4) == b"PAR1"
        for given in columns(file) if parquet else _whole(file):
            yield _graph(given, take, undirected)


@source(files=read_files, verifiers=("text.exact",))
def pictures(*, path: str, size: tuple[PositiveInt, PositiveInt] | None = None, channels: Channels = None) -> Rows:
    """The PNG and JPEG files of a folder as the input `image`; the class of each is the folder that it lies in.

    With `size` (height, width) or `channels` (1 is grey, 3 are colours) each is made anew so, and kept as numbers.

    Paper: none.
    Differs: nothing.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise Refused(f"no folder {path} is here; a path is relative to the folder of params.yaml ({Path.cwd()})")
    for file in sorted(folder.rglob("*")):
        within = file.relative_to(folder)
        if not file.is_file() or any(part.startswith(".") for part in within.parts):
            continue
        data = file.read_bytes()
        try:
            image = data if size is None and channels is None else pixels(data, size, channels)
        except Refused as error:
            yield BadRow(str(file), str(error))
            continue
        said = {"verifier": "text.exact", "reference": file.parent.name, "solution": file.parent.name}
        yield GivenRow(str(file), {"inputs": {"image": image}, **said})


@source(files=read_files, verifiers=("text.exact",))
def points(*, path: Paths) -> Rows:
    """Clouds of points as the input `points`: of an NPZ along its first axis, or a row of Parquet each, whose column
    `points` has a list of numbers for each point. `y`, if there is one, is the class of each.

    Paper: none.
    Differs: nothing.
    """
    for file in files_of(path):
        with _existing(file).open("rb") as content:
            parquet = content.read(4) == b"PAR1"
        for given in columns(file) if parquet else stacked(file):
            yield _cloud(given)


def _each(path: Paths, read: Callable[[str], Rows]) -> Rows:
    for file in files_of(path):
        yield from read(file)


def json_lines(file: str) -> Rows:
    """The rows of a file of JSON lines."""
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            yield _parsed(line.removeprefix(b"\xef\xbb\xbf"), f"{file}:{number}")


def _parsed(line: bytes, place: str) -> GivenRow | BadRow:
    shown = line[:SHOWN].decode("utf-8", "replace")
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return BadRow(place, f"is not UTF-8 (byte {error.start} is {line[error.start]:#04x})", shown)
    except (ValueError, RecursionError) as error:
        return BadRow(place, f"is not JSON ({getattr(error, 'msg', error)})", shown)
    return _row(row, place, shown)


def _row(row: object, place: str, shown: str) -> GivenRow | BadRow:
    if not isinstance(row, dict):
        return BadRow(place, f"is not a JSON object but {type(row).__name__}", shown)
    return GivenRow(place, row)


def any_json(file: str) -> Rows:
    """The rows of a file that holds one JSON array, or JSON lines."""
    with _opened(file) as content:
        first = content.read(SHOWN).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    return array(file) if first == b"[" else json_lines(file)


def array(file: str) -> Rows:
    """The rows of a file that holds one JSON array."""
    content = b"".join(_lines(file)).removeprefix(b"\xef\xbb\xbf")
    try:
        rows = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(f"{file} is not JSON: {error}") from error
    if not isinstance(rows, list):
        raise Refused(f"{file} holds {type(rows).__name__} and no array; read objects a line with `files.jsonl`")
    for number, row in enumerate(rows, 1):
        yield _row(row, f"{file}:{number}", json.dumps(row)[:SHOWN])


def separated(file: str, separator: str = ",") -> Rows:
    """The rows of a file of separated values, each by the line that it ends on."""
    # A text may be longer than what the module takes of itself.
    tables.field_size_limit(1 << 30)
    try:
        with _opened(file) as packed, io.TextIOWrapper(packed, "utf-8-sig", newline="") as text:
            lines = tables.reader(text, delimiter=separator, strict=True)
            names = next(lines, None)
            if names is None:
                return
            other = next((mark for mark in SEPARATORS if len(names) == 1 and mark in names[0]), None)
            if other is not None:
                raise Refused(f"{file}:1: {names[0]!r} is one column; write `separator: {json.dumps(other)}`")
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise Refused(f"{file}:1: the column {twice!r} stands twice; rename one")
            for values in lines:
                yield from _values(names, values, f"{file}:{lines.line_num}")
    except (tables.Error, UnicodeDecodeError) as error:
        raise Refused(f"{file} cannot be read as values between {separator!r}: {error}") from error


def _values(names: Sequence[str], values: Sequence[str], place: str) -> Rows:
    if len(values) == len(names):
        yield GivenRow(place, {name: value or None for name, value in zip(names, values, strict=True)})
    elif values:
        yield BadRow(place, f"has {len(values)} values under {len(names)} names", json.dumps(values)[:SHOWN])


def columns(file: str) -> Rows:
    """The rows of a Parquet file."""
    number = 0
    try:
        with pq.ParquetFile(_existing(file)) as table:
            classes = _classes(table.schema_arrow.metadata or {})
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield GivenRow(f"{file}:{number}", row | named(row, classes))
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise Refused(f"{file} cannot be read as Parquet after row {number}: {error}") from error


def _classes(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Columns of numbers that stand for classes, with the names of these, as the library datasets notes them."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return {name: f["names"] for name, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}


def named(row: Mapping[str, Any], classes: Mapping[str, Sequence[str]]) -> dict[str, str | None]:
    """The names of the classes that a row has by their numbers; none for one that is missing, or -1."""
    numbers = {name: row.get(name) for name in classes}
    return {name: None if n is None or n < 0 else classes[name][n] for name, n in numbers.items()}


def opened_npz(file: str) -> dict[str, np.ndarray]:
    """The arrays of an NPZ."""
    try:
        with _existing(file).open("rb") as content, np.load(content, allow_pickle=False) as opened:
            return {name: opened[name] for name in sorted(opened)}
    except (ValueError, OSError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise Refused(f"{file} cannot be read as an NPZ of numbers: {error}; pickled objects are not read") from error


def stacked(file: str) -> Rows:
    """The rows of an NPZ."""
    given = opened_npz(file)
    lengths = {name: len(array) if array.ndim else 0 for name, array in given.items()}
    if len(set(lengths.values())) != 1:
        raise Refused(f"{file}: its arrays must be equally long, and they have {lengths}")
    for number in range(next(iter(lengths.values()))):
        row = {name: array[number] for name, array in given.items()}
        yield GivenRow(f"{file}:{number + 1}", {n: v if v.ndim else v.item() for n, v in row.items()})


def _whole(file: str) -> Rows:
    """All arrays of an NPZ as one row."""
    yield GivenRow(file, opened_npz(file))


def _graph(given: GivenRow | BadRow, take: str, undirected: bool) -> GivenRow | BadRow:
    if isinstance(given, BadRow):
        return given
    row = {name: value for name, value in given.columns.items() if value is not None}
    try:
        edges = _numbers(row, "edge_index" if "edge_index" in row else "edges", np.int32)
        x, classes = _numbers(row, "x", np.float32), row.get("y")
        if classes is None or len(classes) != len(x):  # type: ignore[arg-type]
            return BadRow(given.source, "is a graph without a class `y` for each of its nodes")
        every = np.ones(len(x), bool)
        tested, learnt = (_mask(row, name, usual) for name, usual in (("test_mask", ~every), ("train_mask", every)))
        learnt = learnt & ~tested
        at = np.flatnonzero({"train": ~tested, "held_out": tested, "all": every}[take])
        if undirected and edges.ndim == 2 and len(edges) == 2:
            edges = np.unique(np.concatenate([edges, edges[::-1]], 1), axis=1)
        found = checked(Graph(x, edges, at))
    except Refused as error:
        return BadRow(given.source, str(error))
    names = [str(name) for name in np.asarray(classes).tolist()]
    return GivenRow(given.source, nodes_row(found, names, learnt))


def _cloud(given: GivenRow | BadRow) -> GivenRow | BadRow:
    if isinstance(given, BadRow):
        return given
    row = {name: value for name, value in given.columns.items() if value is not None}
    try:
        cloud = _numbers(row, "points", np.float32, "cloud")
    except Refused as error:
        return BadRow(given.source, str(error))
    if cloud.ndim != 2 or not len(cloud):
        return BadRow(given.source, f"has points of the shape {list(cloud.shape)}, and not a row of numbers for each")
    if not np.isfinite(cloud).all():
        at = np.argwhere(~np.isfinite(cloud))[0]
        return BadRow(given.source, f"has a point that is none: number {at[1]} of point {at[0]} is {cloud[tuple(at)]}")
    said: dict[str, object] = {"inputs": {"points": cloud}}
    if "y" in row:
        said |= {"verifier": "text.exact", "reference": str(row["y"]), "solution": str(row["y"])}
    return GivenRow(given.source, said)


def _mask(row: Mapping[str, object], name: str, usual: np.ndarray) -> np.ndarray:
    mask = np.asarray(row.get(name, usual)).astype(bool)
    if mask.shape != usual.shape:
        raise Refused(f"has a `{name}` of the shape {list(mask.shape)}, and {len(usual)} nodes; it needs one for each")
    return mask


def _numbers(row: Mapping[str, object], name: str, dtype: Any, what: str = "graph") -> np.ndarray:
    if name not in row:
        raise Refused(f"is a {what} without `{name}`")
    try:
        return np.asarray(row[name]).astype(dtype)
    except (ValueError, TypeError) as error:
        raise Refused(f"has `{name}` that are no table of numbers ({error})") from error


def _lines(file: str) -> Iterator[bytes]:
    with _opened(file) as content:
        try:
            yield from content
        except (EOFError, gzip.BadGzipFile, OSError) as error:
            raise Refused(f"{file} cannot be unpacked: {error}") from error


def _opened(file: str) -> BinaryIO:
    """A file's bytes, unpacked if they are packed by gzip."""
    place = _existing(file)
    with place.open("rb") as content:
        begin = content.read(8)
    for mark, what in OTHERS.items():
        if begin.startswith(mark):
            raise Refused(f"{file} is {what}")
    return gzip.open(place, "rb") if begin.startswith(b"\x1f\x8b") else place.open("rb")  # type: ignore[return-value]


def _existing(path: str) -> Path:
    file = Path(path)
    if not file.is_file():
        raise Refused(f"{path} is missing; a path is relative to the folder of params.yaml ({Path.cwd()})")
    return file
