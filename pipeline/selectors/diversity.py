"""Selectors by distance: answers that lie far from each other."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np

from pipeline.errors import Refused
from pipeline.kinds.selector import Budget, Candidates, Decision, Room, Selector, Sql, Vector, decide, selector
from pipeline.tables import ids

POOL = 2048
COUNTED = 1024
BLOCK = 8192
# Squared distances, of vectors no longer than 1, that differ by less are the same: ties then do not hang on the
# machine's order of summation, which moves them by about 1e-15.
DECIMALS = 10


@selector(random=False)
def k_center(*, vector: Vector, labelled: Sql = "false") -> Selector:
    """Greedy k-centre: always the answer that lies farthest from all that are chosen, by Euclidean distance.

    It starts from the rows that `labelled` says are there already, which are not chosen again; without any, from the
    lowest id. Ties go to the lower id.

    Paper: Sener & Savarese 2018 (core-set), the greedy algorithm of Gonzalez 1985.
    Differs: under a budget of tokens, what no longer fits is passed over; exact, but read from memory in rounds: see
    `farthest`.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        return _choose(candidates, budget, candidates[vector], candidates[labelled] > 0)

    return select


@selector(random=False)
def pcoreset(*, vector: Vector, labelled: Sql = "false") -> Selector:
    """Greedy k-centre in probability space: `vector` is the student's distribution over the possible answers.

    Paper: Kang et al. 2025 (PCoreSet, arXiv 2506.00910): the unlabelled row whose least distance to a chosen one is
    greatest.
    Differs: the distribution is given; the paper mixes it of two heads of its student, (1-a) softmax(ce) + a
    softmax(kd / b). In their code, too, ties go to the first row.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        points = candidates[vector]
        wrong = np.zeros(len(points), bool)
        for block in blocks(points):
            wrong[block] = (points[block] < 0).any(1) | (abs(points[block].sum(1) - 1) > 1e-3)
        if wrong.any():
            example = ids.text(candidates.ids[wrong][0])
            raise Refused(
                f"{vector!r} is not a distribution for {wrong.sum()} answers, for example {example}: "
                f"probabilities must not be negative and must sum to 1. diversity.k_center takes any vectors."
            )
        return _choose(candidates, budget, points, candidates[labelled] > 0)

    return select


@selector(random=False)
def disparity_min(*, vector: Vector, labelled: Sql = "false") -> Selector:
    """Farthest first by angle: always the answer whose greatest cosine to a chosen one is least.

    Paper: disparity-min of Kaushal et al. 2022 (SubModLib, arXiv 2202.10680): maximise the least distance of a pair.
    Differs: it starts as `diversity.k_center` does, of which it is the form for vectors whose length means nothing; a
    vector of length 0 has no angle, and is not chosen.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        return _choose(candidates, budget, unit(candidates[vector]), candidates[labelled] > 0)

    return select


def _choose(candidates: Candidates, budget: Budget, points: np.ndarray, labelled: np.ndarray) -> Decision:
    lacking = missing(points)
    kept = farthest(points, labelled & ~lacking, Room(candidates, budget, ~lacking & ~labelled))
    return decide(candidates, budget, kept, "farthest", {"labelled": labelled, "no_value": lacking})


def farthest(points: np.ndarray, start: np.ndarray, room: Room) -> list[int]:
    """Positions in the order of the greedy algorithm.

    Distances to the chosen only fall, so one that was counted before is a bound. The rows with the greatest bounds are
    counted again until the POOL farthest are up to date. These fit the cache, and are followed for as long as the
    farthest of them beats every bound outside. So most vectors are read a few times, and not once a choice.

    This is done in single precision, whose error has a bound, too. Where several rows may be the farthest they are
    compared in double, so that the choice is the one that exact distances make.
    """
    norms = np.zeros(len(points))
    for block in blocks(points):
        norms[block] = np.where(start[block] | room.open[block], _square(points[block]), 0.0)
    scale = norms.max(initial=0.0) ** 0.5 or 1.0
    if not 1e-6 < scale < 1e6:
        points, norms, scale = points / scale, norms / scale**2, 1.0
    # Two squared distances of single precision, of vectors no longer than 1, are off by at most this.
    slack = np.float32(2 * (points.shape[1] + 8) * np.finfo(np.float32).eps * scale**2)
    chosen = np.flatnonzero(start).tolist()
    given = len(chosen)
    exact, bounds = _Exact(points, norms, chosen), _Bounds(points, norms.astype(np.float32), chosen)
    if not chosen and room.open.any():
        chosen.append(int(room.open.argmax()))
        room.take(chosen[0])
    while room.open.any():
        pool, near, outside = bounds.farthest(room.open, slack)
        vectors = points[pool].astype(np.float32)
        while (far := near.max()) - slack > outside:
            rivals = pool[near >= far - slack]
            best = int(rivals[0]) if len(rivals) == 1 else exact.farthest(rivals)
            chosen.append(best)
            room.take(best)
            near = np.minimum(near, bounds.norms[pool] + bounds.norms[best] - 2 * (vectors @ points[best]))
            near[~room.open[pool]] = -np.inf
    return chosen[given:]


class _Bounds:
    """Squared distances to the nearest chosen row in single precision, each as it was when it was last counted."""

    def __init__(self, points: np.ndarray, norms: np.ndarray, chosen: list[int]) -> None:
        self.points, self.norms, self.chosen = points, norms, chosen
        self.nearest, self.seen = np.full(len(points), np.inf, np.float32), np.zeros(len(points), np.int64)

    def farthest(self, able: np.ndarray, slack: np.float32) -> tuple[np.ndarray, np.ndarray, np.float32]:
        """The POOL farthest rows, or more if more may be farthest, with their distances; the bound of all others."""
        self.nearest[~able] = -np.inf
        while True:
            least = -np.inf
            if len(self.nearest) > POOL:
                least = min(self.nearest.max() - slack, np.partition(self.nearest, -POOL)[-POOL])
            inside = self.nearest >= least
            pool = np.flatnonzero(inside & able)
            stale = pool[self.seen[pool] < len(self.chosen)]
            if not len(stale):
                return pool, self.nearest[pool], self.nearest[~inside].max(initial=-np.inf)
            self._count(stale[np.argsort(self.seen[stale], kind="stable")])

    def _count(self, rows: np.ndarray) -> None:
        for at in range(0, len(rows), COUNTED):
            some = rows[at : at + COUNTED]
            vectors = self.points[some].astype(np.float32, copy=False)
            for others in blocks(fresh := self.chosen[self.seen[some].min() :]):
                squared = vectors @ (-2 * self.points[fresh[others]].astype(np.float32).T)
                squared += self.norms[fresh[others]]
                self.nearest[some] = np.minimum(self.nearest[some], squared.min(1) + self.norms[some])
            self.seen[some] = len(self.chosen)


class _Exact:
    """Distances in double precision, of the rows that are asked for, each to a chosen row once."""

    def __init__(self, points: np.ndarray, norms: np.ndarray, chosen: list[int]) -> None:
        self.points, self.norms, self.chosen = points, norms, chosen
        self.unit = norms.max(initial=0.0) or 1.0
        self.nearest, self.seen = np.full(len(points), np.inf), np.zeros(len(points), np.int64)

    def farthest(self, rows: np.ndarray) -> int:
        """The one that lies farthest from the chosen, the first of several."""
        fresh = self.chosen[self.seen[rows].min() :]
        others = self.points[fresh].astype(np.float64).T
        for block in blocks(rows):
            some = rows[block]
            products = self.points[some].astype(np.float64) @ others
            squared = self.norms[some, None] + self.norms[fresh] - 2 * products
            self.nearest[some] = np.minimum(self.nearest[some], squared.min(1, initial=np.inf))
        self.seen[rows] = len(self.chosen)
        return int(rows[np.round(self.nearest[rows] / self.unit, DECIMALS).argmax()])


def unit(points: np.ndarray) -> np.ndarray:
    """Vectors of length 1 in the same directions; NaN where there is none."""
    scaled = np.empty(points.shape, points.dtype)
    for block in blocks(points):
        length = _square(points[block])[:, None] ** 0.5
        scaled[block] = np.divide(points[block], length, out=np.full_like(points[block], np.nan), where=length > 0)
    return scaled


def quantised(points: np.ndarray) -> np.ndarray:
    """Directions as whole numbers of float32, of length at most 4096; zeros where there is none.

    Any sum of their products is below 2**24 and so exact, in whatever order a machine adds; a cosine is right to about
    1e-4.
    """
    found = np.zeros(points.shape, np.float32)
    scale = 4096 - points.shape[1] ** 0.5 / 2
    for block in blocks(points):
        found[block] = np.nan_to_num(np.round(unit(points[block]) * scale))
    return found


def missing(points: np.ndarray) -> np.ndarray:
    """Which rows lack a value, or have one that is not finite."""
    lacking = np.zeros(len(points), bool)
    for block in blocks(points):
        lacking[block] = ~np.isfinite(points[block]).all(1)
    return lacking


def blocks(rows: Sized) -> Iterator[slice]:
    """Cuts of at most BLOCK rows: what is made of all vectors at once would be as large as they are."""
    return (slice(at, at + BLOCK) for at in range(0, len(rows), BLOCK))


def _square(vectors: np.ndarray) -> np.ndarray:
    return np.square(vectors, dtype=np.float64).sum(1)
