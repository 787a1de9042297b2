"""What a retriever is: from texts of knowledge and a query to the texts that speak most to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.core.methods import marker


@dataclass(frozen=True)
class Found:
    """For each of Q queries the C best texts, best first: their positions and their scores, both [Q, C]. C is what was
    asked for, or the number of texts if there are fewer; a score of 0 says that a text has nothing to do with it."""

    at: np.ndarray
    scores: np.ndarray


class Retriever(Protocol):
    """Finds texts."""

    def __call__(self, texts: Sequence[str], queries: Sequence[str], count: int, /) -> Found:
        """The `count` best texts for every query; of texts that are as good the first comes first."""
        ...


def best_of(scores: Iterable[np.ndarray], queries: int, count: int) -> Found:
    """The `count` highest of the scores of all texts, [texts] for every query; the first position wins ties."""
    at, best = np.empty((queries, count), np.int64), np.empty((queries, count))
    for i, row in enumerate(scores if count else ()):
        high = np.flatnonzero(row >= np.partition(row, len(row) - count)[len(row) - count])
        at[i] = high[np.argsort(-row[high], kind="stable")[:count]]
        best[i] = row[at[i]]
    return Found(at, best)


retriever = marker("retriever")
