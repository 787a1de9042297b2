"""Cells of arrays: numpy arrays to what a column of type TENSORS holds, and back.

A number is finite and lies in little-endian order, an array in C order, so that equal arrays have equal bytes on any
machine. A PNG or JPEG is kept as it is. Nothing is a pickle: what is read is numbers, whoever wrote it.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import Refused
from pipeline.tables.ids import ID_BYTES, Cell
from pipeline.tables.lists import lengths, values

DTYPES = {name: np.dtype(code) for name, code in {
    "u8": "|u1", "i32": "<i4", "i64": "<i8", "f16": "<f2", "f32": "<f4", "f64": "<f8",
}.items()}  # fmt: skip
# Files that are kept whole, and how they begin.
FILES = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff"}
KNOWN = ", ".join([*DTYPES, *FILES])
# What Arrow and Parquet allow of one value.
MOST = 2**31 - 1

Array = np.ndarray | bytes


def cell(arrays: Mapping[str, Array]) -> list[dict[str, Any]]:
    """Arrays, and whole PNG or JPEG files as bytes, to a cell in the order of their names."""
    return [_entry(name, arrays[name]) for name in sorted(arrays)]


def arrays(cell: Cell, folder: Path | None = None) -> dict[str, Array]:
    """The arrays of a cell by name, checked; a relative `uri` is read from the folder. Files are given as bytes."""
    found: dict[str, Array] = {}
    for entry in cell:
        if entry["name"] in found:
            raise Refused(f"a cell holds two arrays called {entry['name']!r}")
        found[entry["name"]] = _array(entry, folder)
    return found


def said_of(cell: Cell) -> str:
    """What a cell holds, in words: points 256 x 2."""
    return ", ".join(f"{entry['name']} {' x '.join(map(str, entry['shape']))}" for entry in cell)


def spelled(cell: Cell | None) -> list[dict[str, Any]] | None:
    """A cell as JSON can hold it: its bytes are letters."""
    if cell is None:
        return None
    return [{**e, "data": e["data"] and base64.b64encode(e["data"]).decode(), "shape": list(e["shape"])} for e in cell]


def unspelled(cell: Cell | None) -> list[dict[str, Any]] | None:
    """The cell that was spelled so."""
    return None if cell is None else [{**e, "data": e["data"] and base64.b64decode(e["data"])} for e in cell]


def stacked(cells: pa.Array, name: str) -> np.ndarray | None:
    """The arrays of this name in a column of cells, one above the other, without a Python object each; None where they
    are not of one type and one shape, or not all there. Their bytes are not held against their digests."""
    entries = values(cells)
    entries = entries.filter(pc.equal(entries.field("name"), name))
    kinds, data = entries.field("dtype").unique().to_pylist(), entries.field("data")
    if len(entries) != len(cells) or len(kinds) != 1 or kinds[0] not in DTYPES or data.null_count:
        return None
    shapes = entries.field("shape")
    ends_B = np.frombuffer(data.buffers()[1], np.int32)[data.offset :][: len(data) + 1]
    if np.ptp(lengths(shapes)):
        return None
    shape_BR = values(shapes).to_numpy().reshape(len(entries), -1)
    size = math.prod(shape_BR[0].tolist()) * DTYPES[kinds[0]].itemsize
    if (shape_BR != shape_BR[0]).any() or (np.diff(ends_B) != size).any():
        return None
    whole = np.frombuffer(data.buffers()[2], np.uint8)[ends_B[0] : ends_B[-1]]
    return whole.view(DTYPES[kinds[0]]).reshape(len(entries), *shape_BR[0])


def _entry(name: str, value: Array) -> dict[str, Any]:
    if not name:
        raise Refused("an array must have a name")
    if isinstance(value, bytes):
        dtype = next((kind for kind, start in FILES.items() if value.startswith(start)), None)
        if dtype is None:
            raise Refused(f"the array {name!r} is bytes that begin neither a PNG nor a JPEG; give numbers as an array")
        shape, data = [len(value)], value
    else:
        dtype = _dtype(name, value)
        shape, data = list(value.shape), _finite(name, value.astype(DTYPES[dtype], copy=False)).tobytes()
    if len(data) > MOST:
        raise Refused(f"the array {name!r} has {len(data):,} bytes, more than a cell may hold (2 GB); cut it")
    return {"name": name, "dtype": dtype, "shape": shape, "digest": digest(data), "data": data, "uri": None}


def _dtype(name: str, value: np.ndarray) -> str:
    if value.dtype.hasobject:
        raise Refused(f"the array {name!r} holds Python objects; only numbers can be kept ({KNOWN})")
    little = value.dtype.newbyteorder("<")
    found = next((ours for ours, theirs in DTYPES.items() if theirs == little), None)
    if found is None:
        raise Refused(f"the array {name!r} is of the type {value.dtype}, which is none of {KNOWN}; convert it")
    return found


def digest(data: bytes) -> str:
    """What stands for some bytes in every id."""
    return hashlib.blake2b(data, digest_size=ID_BYTES).hexdigest()


def _array(entry: Mapping[str, Any], folder: Path | None) -> Array:
    name, kind, shape = entry["name"], entry["dtype"], entry["shape"]
    if kind not in DTYPES and kind not in FILES:
        raise Refused(f"the array {name!r} is of the type {kind!r}, which is none of {KNOWN}")
    data = entry["data"]
    if data is None:
        data = _fetched(name, entry["uri"], folder)
    size = DTYPES[kind].itemsize if kind in DTYPES else 1
    if any(width < 0 for width in shape) or math.prod(shape) * size != len(data):
        raise Refused(f"the array {name!r} has {len(data):,} bytes, which is not {kind} of the shape {list(shape)}")
    if digest(data) != entry["digest"]:
        where = f"in {entry['uri']} " if entry["data"] is None else ""
        raise Refused(f"the bytes of the array {name!r} {where}are not those that its digest names; they have changed")
    return data if kind in FILES else _finite(name, np.frombuffer(data, DTYPES[kind]).reshape(shape))


def _finite(name: str, value: np.ndarray) -> np.ndarray:
    """Refuse NaN and infinity, which no model can learn from."""
    if value.dtype.kind == "f" and len(bad := np.argwhere(~np.isfinite(value))):
        place = tuple(bad[0].tolist())
        raise Refused(
            f"the array {name!r} has {len(bad):,} numbers that are not finite, the first at {list(place)} "
            f"({value[place]}); write what is missing as a number, and say which in an array of its own"
        )
    return value


def _fetched(name: str, uri: str | None, folder: Path | None) -> bytes:
    if uri is None:
        raise Refused(f"the array {name!r} has neither bytes nor a place where they lie")
    path = PurePosixPath(uri)
    if folder is None or path.is_absolute() or ".." in path.parts:
        raise Refused(f"the array {name!r} lies at {uri!r}, which is not inside the folder of its data")
    try:
        return (folder / path).read_bytes()
    except OSError as error:
        raise Refused(f"the array {name!r} cannot be read from {folder / path}: {error.strerror or error}") from error
