"""Vectors of many rows as one array: never as lists, and in a file that is mapped where they would fill the memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import Refused
from pipeline.tables import ids, mapped
from pipeline.tables.parquet import Scan

BATCH = 16_384
# Above so many bytes they lie in a file without a name, which is gone when the process is.
MAPPED = 500_000_000


def stored(scores: Scan, expression: str) -> Scan | None:
    """The tables whose column a rule is, if it is no more than `name.vector`; that needs no SQL."""
    named = re.fullmatch(r"\s*(\w+)\.vector\s*", expression)
    return scores.only(named[1]) if named and named[1] in scores.names else None


def scores(tables: Scan, response_ids: np.ndarray, place: Path) -> np.ndarray:
    """The vectors of these responses, which are in order: [n, width] float32, a row of NaN where there is none."""
    wanted = response_ids.astype(bytes)

    def pieces() -> Iterator[tuple[np.ndarray, pa.Array]]:
        for file in tables.files:
            for batch in pq.ParquetFile(file).iter_batches(BATCH, columns=["response_id", "vector"]):
                at = ids.places(ids.names(batch["response_id"]), wanted)
                there = (at >= 0) & batch["vector"].is_valid().to_numpy(zero_copy_only=False)
                yield at[there], batch["vector"].filter(pa.array(there))

    return matrix(pieces(), len(wanted), f"vector of {', '.join(dict.fromkeys(tables.names))}", place)


def column(lists: pa.ChunkedArray, expression: str, place: Path) -> np.ndarray:
    """A column of lists in the same form."""
    given, ends = lists.drop_null(), np.cumsum([0, *(len(chunk) for chunk in lists.drop_null().chunks)])
    there = np.flatnonzero(lists.is_valid().to_numpy())
    pieces = ((there[start : start + len(chunk)], chunk) for start, chunk in zip(ends, given.chunks, strict=False))
    return matrix(pieces, len(lists), repr(expression), place)


def matrix(pieces: Iterable[tuple[np.ndarray, pa.Array]], rows: int, shown: str, place: Path) -> np.ndarray:
    """Lists of one length at the rows where each belongs; a list with a null in it is a row of NaN."""
    found = np.full((rows, 1), np.nan, np.float32)
    empty, width = np.ones(rows, bool), None
    for at, lists in pieces:
        for size in pc.unique(pc.list_value_length(lists)).to_pylist():
            if width is None:
                width, found = size, mapped.array((rows, size), np.float32, place if 4 * rows * size > MAPPED else None)
            if size != width:
                raise Refused(f"{shown} gives vectors of different lengths: {min(size, width)}, {max(size, width)}")
        if width is not None:
            values = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(at), width)
            found[at] = np.where(np.isnan(values).any(1, keepdims=True), np.nan, values)
            empty[at] = False
    found[empty] = np.nan
    return found


def vendi(vectors: np.ndarray) -> float:
    """How many different things vectors [n, width] are, by their cosines: 1 if all are alike, n if each is at a right
    angle to all others. One that is not known or has no length is left out; of none it is 0.

    Paper: Friedman and Dieng 2023, The Vendi Score (arXiv 2210.02410), equation 2, order 1.
    """
    wide = vectors[np.isfinite(vectors).all(1)].astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    unit = wide[lengths > 0] / lengths[lengths > 0, None]
    if not len(unit):
        return 0.0
    # Either product has the same eigenvalues but for zeros, and the smaller one is made.
    kernel = unit @ unit.T if len(unit) < unit.shape[1] else unit.T @ unit
    shares = np.linalg.eigvalsh(kernel / len(unit))
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))
