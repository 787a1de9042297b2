"""The K outcomes of a place in about half the bytes: ids in ascending order as gaps, log-probabilities in steps.

An order costs bits: K of V ids are K log2 V of them, and log2 K! fewer as a set. A gap's upper bytes are nearly always
small, which shows where bytes of one weight stand together (Parquet's BYTE_STREAM_SPLIT). A log-probability is so many
STEPS of a nat below the likeliest of its place; where that stands follows from the mass of all others, which is stored
exactly. N places, K outcomes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa

from pipeline.tables.lists import nested, values

# Steps of a nat: a probability is off by at most 1.6 %, either way.
STEPS = 32
COLUMNS = ("topk_gaps", "topk_steps")
Rows = TypeVar("Rows", pa.Table, pa.RecordBatch)


def packed(ids: Sequence[np.ndarray], logprobs: Sequence[np.ndarray]) -> dict[str, pa.Array]:
    """The columns COLUMNS of some rows, from the matrices [N, K] of each; null where a log-probability is no number."""
    gaps, steps = [], []
    for ids_NK, logprobs_NK in zip(ids, logprobs, strict=True):
        order = ids_NK.argsort(1)
        ids_NK, logprobs_NK = (np.take_along_axis(each, order, 1) for each in (ids_NK, logprobs_NK))
        gaps.append(np.diff(ids_NK, axis=1, prepend=0).ravel())
        steps.append(np.rint((logprobs_NK.max(1, keepdims=True) - logprobs_NK.astype(np.float64)) * STEPS).ravel())
    offsets = np.cumsum([0, *map(len, gaps)], dtype=np.int32)
    flat = np.concatenate([*steps, np.empty(0)])
    bad = ~np.isfinite(flat)
    said = pa.array(np.where(bad, 0, flat).astype(np.int32), mask=bad if bad.any() else None)
    found = pa.array(np.concatenate([*gaps, np.empty(0)]).astype(np.int32))
    return {name: pa.ListArray.from_arrays(offsets, each) for name, each in zip(COLUMNS, (found, said), strict=True)}


def plain(rows: Rows) -> Rows:
    """Rows of signals with the columns `topk_ids` and `topk_logprobs`, however they are stored."""
    if not len(rows) or COLUMNS[0] not in rows.schema.names or rows[COLUMNS[0]].null_count:
        return rows
    gaps, steps, tails = (_whole(rows[name]) for name in (*COLUMNS, "tail_mass"))
    sizes = np.diff(tails.offsets.to_numpy())
    widths = np.diff(gaps.offsets.to_numpy()) // np.maximum(sizes, 1)
    cuts = np.cumsum(np.diff(gaps.offsets.to_numpy()))[:-1]
    ids, logprobs = [], []
    flat = (values(gaps).to_numpy(), values(steps).to_numpy(zero_copy_only=False).astype(np.float64))
    at = np.cumsum(sizes)[:-1]
    tail = np.split(values(tails).to_numpy(zero_copy_only=False).astype(np.float64), at)
    for K, gap, step, tail_N in zip(widths.tolist(), *(np.split(each, cuts) for each in flat), tail, strict=True):
        below_NK = -step.reshape(len(tail_N), K) / STEPS
        order = (-below_NK).argsort(1, kind="stable")
        below_NK = np.take_along_axis(below_NK, order, 1)
        with np.errstate(divide="ignore"):
            top_N = np.log1p(-np.minimum(tail_N, 1)) - np.log(np.exp(below_NK).sum(1))
        ids.append(np.take_along_axis(gap.reshape(len(tail_N), K).cumsum(1), order, 1))
        logprobs.append(below_NK + top_N[:, None])
    made = {"topk_ids": nested(ids, pa.int32()), "topk_logprobs": nested(logprobs, pa.float32())}
    made |= {name: pa.nulls(len(rows), gaps.type) for name in COLUMNS}
    for name, column in made.items():
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
    return rows


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
