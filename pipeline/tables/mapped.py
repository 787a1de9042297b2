"""Arrays in a file without a name, which is mapped: they are no memory of this process, and are gone with it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import DTypeLike


def array(shape: tuple[int, ...], dtype: DTypeLike, scratch: Path | None) -> np.ndarray:
    """An array to be filled, in a file in the folder `scratch` if one is given."""
    if scratch is None or not all(shape):
        return np.empty(shape, dtype)
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=scratch) as file:
        return np.asarray(np.memmap(file, dtype, "w+", shape=shape))


def numbers(column: pa.ChunkedArray, where: np.ndarray, scratch: Path, null: int | None = None) -> np.ndarray:
    """The numbers of a column in the rows of a mask, [n]; where there is none, NaN or what stands for `null`."""
    kind = np.float64 if column.null_count and null is None else column.type.to_pandas_dtype()
    found, start, end = array((int(where.sum()),), kind, scratch), 0, 0
    for chunk in column.chunks:
        whole = chunk if null is None else pc.fill_null(chunk, null)
        some = whole.to_numpy(zero_copy_only=False)[where[start : start + len(chunk)]]
        found[end : end + len(some)] = some
        start, end = start + len(chunk), end + len(some)
    return found
