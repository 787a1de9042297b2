"""What a scorer is, and how it gives the quantities that its scores are made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contracts import REAL, TEXT, whole
from pipeline.core.methods import marker

# What a scorer may read of an answer beside the columns of responses: 1 where a person called it good and 0 where bad,
# null where nobody did, and the person's words.
LABELLED = {"label": REAL, "note": TEXT}


class Scorer(Protocol):
    """Scores many responses at once; all answers to a prompt are among them, or none."""

    def __call__(self, rows: pa.Table, /) -> dict[str, pa.Array]:
        """From the columns that the scorer reads to those of the table `scores`: `score`, `quantities`, and `detail` or
        `vector` if it has them, as lists or arrays with one value per row."""
        ...


class Learner(Protocol):
    """Makes a scorer from what it sees of the whole table; what a method with the trait `learns` is."""

    def __call__(self, parts: Iterable[pa.Table], /) -> Scorer:
        """From the columns that it reads, part by part, so that no more than a part need be in memory. A score may then
        hang on the rows that were learnt from, and still on no other."""
        ...


def siblings(rows: pa.Table) -> np.ndarray:
    """For every answer the number of its siblings, the answers that one entry got to one prompt, [n] from 0."""
    asked, entry = codes(rows["prompt_id"]), codes(rows["entry"])
    if not entry.any():
        return asked
    return np.unique(asked.astype(np.int64) * (len(asked) + 1) + entry, return_inverse=True)[1]


def together(number: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of one number, for every number."""
    order = np.argsort(number, kind="stable")
    if len(order):
        yield from np.split(order, np.flatnonzero(np.diff(number[order])) + 1)


def codes(column: pa.ChunkedArray) -> np.ndarray:
    """A number for every distinct text, from 0 in the order of the rows, [n]."""
    return whole(pc.dictionary_encode(column)).indices.to_numpy()


def quantities_of(of: np.ndarray | None = None, /, **columns: np.ndarray) -> pa.MapArray:
    """One map per row, name to number, from one array of numbers per name; `of` says whose numbers a row has, where
    many have the same."""
    values = np.column_stack(list(columns.values())).astype(np.float64, copy=False)
    if np.isnan(values).any():
        bad = [name for name, column in columns.items() if np.isnan(column).any()]
        raise ValueError(f"quantities must be numbers, and {', '.join(bad)} has NaN")
    values = values if of is None else values[of]
    rows, width = values.shape
    names = pa.array(list(columns)).take(pa.array(np.tile(np.arange(width, dtype=np.int16), rows)))
    return pa.MapArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * width, names, pa.array(values.ravel()))


# Traits: `reads`, the columns of responses that are read, and of LABELLED; `score`, SQL that gives the score from its
# quantities, such as `votes / samples`, which the laws hold it to; `means`, what the report takes it for: the
# `agreement` of samples, or whether an answer is `right`; `learns`, that the method is a Learner.
scorer = marker("scorer")
