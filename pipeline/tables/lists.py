"""Columns of lists as numpy arrays, without making a Python number.

B rows of a table, T positions of the longest list.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def values(array: pa.ListArray) -> pa.Array:
    """The values of an array of lists, one list after another; of a slice, its own alone."""
    start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
    return array.values.slice(start, end - start)


def lengths(array: pa.ListArray) -> np.ndarray:
    """The length [B] of each list."""
    return np.diff(array.offsets.to_numpy())


def split(array: pa.ListArray) -> list[np.ndarray]:
    """The values of each list."""
    return np.split(values(array).to_numpy(), np.cumsum(lengths(array))[:-1])


def whole(rows: pa.Table, column: str) -> pa.Array:
    """A column in one piece."""
    return rows[column].combine_chunks() if isinstance(rows[column], pa.ChunkedArray) else rows[column]


def padded(numbers: np.ndarray, sizes: np.ndarray, width: int) -> np.ndarray:
    """Lists one after another and their lengths, to rows [B, width] with zeros at their end."""
    out = np.zeros((len(sizes), width), numbers.dtype)
    out[np.arange(width) < sizes[:, None]] = numbers
    return out


def inside(spans: pa.ListArray, width: int) -> np.ndarray:
    """A bool [B, width], true at the positions in the half-open spans {start, end} of each row."""
    row = np.repeat(np.arange(len(spans)), lengths(spans))
    marks = np.zeros((len(spans), width + 1), np.int64)
    np.add.at(marks, (row, values(spans).field("start").to_numpy()), 1)
    np.add.at(marks, (row, values(spans).field("end").to_numpy()), -1)
    return marks.cumsum(1)[:, :-1] > 0


def joined(arrays: Sequence[np.ndarray], dtype: pa.DataType) -> pa.ListArray:
    """Arrays as a column of lists, a list each; a float that is no finite number is null."""
    offsets = np.cumsum([0, *(len(array) for array in arrays)], dtype=np.int32)
    flat = np.concatenate(arrays) if arrays else np.empty(0)
    return pa.ListArray.from_arrays(offsets, _finite(flat, dtype))


def nested(arrays: Sequence[np.ndarray], dtype: pa.DataType) -> pa.ListArray:
    """Matrices [N, K] as a column of lists of lists, a matrix each; a float that is no finite number is null."""
    offsets = np.cumsum([0, *(len(array) for array in arrays)], dtype=np.int32)
    flat = np.concatenate(arrays) if arrays else np.empty((0, 1))
    inner = pa.FixedSizeListArray.from_arrays(_finite(flat.ravel(), dtype), flat.shape[1]).cast(pa.list_(dtype))
    return pa.ListArray.from_arrays(offsets, inner)


def _finite(numbers: np.ndarray, dtype: pa.DataType) -> pa.Array:
    if not pa.types.is_floating(dtype):
        return pa.array(numbers, dtype)
    bad = ~np.isfinite(numbers.astype(np.float64))
    return pa.array(numbers, dtype, mask=bad if bad.any() else None)
