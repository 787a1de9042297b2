"""Selectors that leave out what is too like an answer that is kept."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt

from pipeline.kinds.selector import Budget, Candidates, Decision, Room, Selector, Sql, Vector, decide, selector
from pipeline.selectors.diversity import blocks, quantised
from pipeline.selectors.rank import best

ROUNDS = 10
SAMPLE = 256
SCANNED = 1024


@selector(random=False)
def semdedup(
    *,
    vector: Vector,
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.05,
    clusters: PositiveInt | None = None,
    keep: Literal["hard", "easy"] = "hard",
) -> Selector:
    """One of those that mean the same: inside a cluster, what has a cosine above 1 - epsilon to one before it goes.

    `hard` looks at those first that lie far from the cluster's centre, `easy` at the near ones. Under a budget the
    least alike are kept first, which is what a smaller `1 - epsilon` would keep. `clusters` is the root of the number
    of answers unless it is given.

    Paper: Abbas et al. 2023 (SemDeDup, arXiv 2303.09540), section 3. As in their code, the one before may be one that
    goes itself.
    Differs: clusters are by angle, from starts that lie evenly in the order of ids, which are hashes; cosines as in
    `submodular.facility_location`.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        points = quantised(candidates[vector])
        there = np.flatnonzero(np.any(points, 1))
        cluster, centres = by_angle(points[there], clusters or round(len(there) ** 0.5))
        alike = np.full(len(points), np.nan)
        order = np.argsort(cluster, kind="stable")
        for some in np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1) if len(order) else ():
            members, number = there[some], cluster[some[0]]
            near = points[members] @ centres[number]
            members = members[np.argsort(near if keep == "hard" else -near, kind="stable")]
            alike[members] = most_alike_before(points[members])
        return best(candidates, budget, -alike, "distinct", {"too_alike": alike > 1 - epsilon})

    return select


@selector(random=False)
def deita(
    *,
    complexity: Sql,
    quality: Sql,
    vector: Vector,
    alike: Annotated[float, Field(gt=0, le=1)] = 0.9,
) -> Selector:
    """By complexity times quality, the best first, what has a cosine above `alike` to one that is kept left out.

    Paper: Liu et al. 2024 (DEITA, arXiv 2312.15685), algorithm 1; their evol score is the sum of the products of a
    conversation's turns.
    Differs: one answer is one turn, so its product is the score. Each is compared with all that are kept; their code
    compares with those of its batch, too, that are not. Cosines as in `submodular.facility_location`.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        points, value = quantised(candidates[vector]), candidates[complexity] * candidates[quality]
        lacking = np.isnan(value) | ~np.any(points, 1)
        order = np.argsort(np.where(lacking, np.inf, -value), kind="stable")[: (~lacking).sum()]
        room, twin = Room(candidates, budget, ~lacking), np.zeros(len(points), bool)
        kept: list[int] = []
        for at in range(0, len(order), SCANNED):
            some = order[at : at + SCANNED]
            closest = cosines(points[some], points[kept]).max(1, initial=-1.0)
            beside = cosines(points[some], points[some])
            for place, i in enumerate(some):
                if closest[place] > alike:
                    twin[i] = True
                elif room.open[i]:
                    kept.append(int(i))
                    room.take(int(i))
                    closest = np.maximum(closest, beside[place])
        return decide(candidates, budget, kept, "best", {"too_alike": twin, "no_value": lacking})

    return select


def most_alike_before(points: np.ndarray) -> np.ndarray:
    """For each row its greatest cosine to one before it; -1 for the first."""
    found = np.full(len(points), -1.0)
    for at in range(0, len(points), SCANNED):
        some = points[at : at + SCANNED]
        before = np.tri(len(some), at + len(some), at - 1, dtype=bool)
        found[at : at + SCANNED] = np.where(before, cosines(some, points[: at + len(some)]), -1.0).max(1)
    return found


def cosines(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Between directions in whole numbers, [rows, others]; 1 for equal ones, to the last bit."""
    length, other = (np.square(points, dtype=np.float64).sum(1) for points in (rows, others))
    return (rows @ others.T) / np.sqrt(length[:, None] * other)


def by_angle(points: np.ndarray, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Spherical k-means: the cluster of each row, and the directions of the centres, both in whole numbers.

    Centres are found on SAMPLE rows each, if there are more.
    """
    from scipy.sparse import csc_matrix

    def evenly(count: int) -> np.ndarray:
        return points[np.linspace(0, max(len(points) - 1, 0), min(count, len(points))).astype(int)]

    def nearest(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros(0, int), *((rows[block] @ centres.T).argmax(1) for block in blocks(rows))])

    centres, sample = evenly(clusters), evenly(clusters * SAMPLE)
    for _ in range(ROUNDS if len(points) else 0):
        members = csc_matrix((np.ones(len(sample)), nearest(sample), np.arange(len(sample) + 1)))
        moved = quantised(members @ sample)
        moved = np.pad(moved, ((0, len(centres) - len(moved)), (0, 0)))
        # A cluster that lost all its rows, or whose rows cancel out, stays where it was.
        moved = np.where(np.any(moved, 1, keepdims=True), moved, centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return nearest(points), centres
