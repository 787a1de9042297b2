"""Selectors by a function of the whole set, raised greedily: how well it stands for all, how far it spreads."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field, PositiveInt

from pipeline.kinds.selector import Budget, Candidates, Decision, Room, Selector, Sql, Vector, decide, selector
from pipeline.selectors.diversity import blocks, quantised
from pipeline.tables import ids

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

# Similarities that are made at once.
CELLS = 1 << 24


@selector(random=False)
def facility_location(*, vector: Vector, neighbours: PositiveInt = 100, labelled: Sql = "false") -> Selector:
    """The answers that stand best for all: greedily raises the sum of all their greatest cosines to a kept one.

    Of an answer's cosines the `neighbours` greatest count, and none below 0. `labelled` rows stand for others from the
    start and are not chosen.

    Paper: Mirchandani & Francis 1990 (Discrete Location Theory) for the function; the lazy greedy algorithm of Minoux
    1978.
    Differs: exact on the graph of neighbours; cosines are those of directions in whole numbers, right to 1e-4 and the
    same on any machine.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        return _stand_for_all(candidates, budget, vector, labelled, neighbours, lazily)

    return select


@selector(random=True)
def stochastic_greedy(
    *,
    vector: Vector,
    neighbours: PositiveInt = 100,
    labelled: Sql = "false",
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.1,
) -> Selector:
    """Facility location where every step looks at a random few: (n / k) ln(1 / epsilon) of them for k choices of n.

    Paper: Mirzasoleiman et al. 2015 (Lazier Than Lazy Greedy, arXiv 1409.7938), algorithm 1.
    Differs: the few of a step come from one random order, which is gone through in a circle, so that none is looked at
    again before all were; under a budget of tokens, k is what answers of mean length would fill it.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        order = np.argsort(ids.draws(seed, "order", candidates.ids.tolist()), kind="stable")
        mean = budget.cost_of(candidates).mean() if len(candidates) else 1.0
        few = math.ceil(max(1.0, len(candidates) * mean / budget.limit) * -math.log(epsilon))

        def sampled(graph: csc_matrix, covered: np.ndarray, room: Room) -> list[int]:
            return by_samples(graph, covered, room, order, few)

        return _stand_for_all(candidates, budget, vector, labelled, neighbours, sampled)

    return select


@selector(random=False)
def graph_cut(*, vector: Vector, redundancy: Annotated[float, Field(ge=0)] = 0.4, labelled: Sql = "false") -> Selector:
    """Alike to all and unlike each other: similarity of the kept to all, less `redundancy` x that among the kept.

    Similarity is (1 + cosine) / 2. Above a redundancy of 0.5 a further answer may lower the sum; it is kept nonetheless
    while the budget has room.

    Paper: graph cut of Kaushal et al. 2022 (SubModLib, arXiv 2202.10680), lambda is `redundancy`.
    Differs: cosines as in `submodular.facility_location`, of all pairs and without a graph: the function is linear in
    the sum of the kept directions.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        points = quantised(candidates[vector])
        total = sum((points[b].sum(0, dtype=np.float64) for b in blocks(points)), np.zeros(points.shape[1]))
        # What all answers have in common, such as the 1, decides nothing.
        value = _products(points, total) - redundancy * np.square(points, dtype=np.float64).sum(1)
        return _spread(candidates, budget, points, labelled, value, 2 * redundancy)

    return select


@selector(random=False)
def disparity_sum(*, vector: Vector, labelled: Sql = "false") -> Selector:
    """Always the answer whose cosines to all that are chosen have the least sum; it starts from the lowest id.

    Paper: disparity-sum of Kaushal et al. 2022 (SubModLib, arXiv 2202.10680): the sum of 1 - cosine over all pairs.
    Differs: cosines as in `submodular.graph_cut`. It is drawn to the rim, where it keeps near copies;
    `diversity.disparity_min` does not.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        points = quantised(candidates[vector])
        return _spread(candidates, budget, points, labelled, np.zeros(len(points)), 1.0)

    return select


def _spread(
    candidates: Candidates, budget: Budget, points: np.ndarray, labelled: Sql, value: np.ndarray, weight: float
) -> Decision:
    """Always the greatest value, of which every choice takes its product with the row, times a weight."""
    given, lacking = candidates[labelled] > 0, ~np.any(points, 1)
    value = value - weight * _products(points, points[given].sum(0, dtype=np.float64))
    room = Room(candidates, budget, ~lacking & ~given)
    chosen: list[int] = []
    while room.open.any():
        best = int(np.where(room.open, value, -np.inf).argmax())
        chosen.append(best)
        room.take(best)
        value -= weight * _products(points, points[best])
    return decide(candidates, budget, chosen, "chosen", {"labelled": given, "no_value": lacking})


def _products(points: np.ndarray, vector: np.ndarray) -> np.ndarray:
    found = np.zeros(len(points))
    for block in blocks(points):
        found[block] = points[block] @ vector
    return found


Greedy = Callable[["csc_matrix", np.ndarray, Room], list[int]]


def _stand_for_all(
    candidates: Candidates, budget: Budget, vector: Vector, labelled: Sql, neighbours: int, greedy: Greedy
) -> Decision:
    points, given = quantised(candidates[vector]), candidates[labelled] > 0
    lacking = ~np.any(points, 1)
    graph = nearest(points, neighbours)
    covered = np.zeros(len(points))
    for i in np.flatnonzero(given):
        _cover(graph, covered, int(i))
    chosen = greedy(graph, covered, Room(candidates, budget, ~lacking & ~given))
    return decide(candidates, budget, chosen, "chosen", {"labelled": given, "no_value": lacking})


def nearest(points: np.ndarray, neighbours: int) -> csc_matrix:
    """The products of every row with its `neighbours` nearest, itself among them, that are above 0: [rows, rows].

    Of several that are as near, those of lower place. A column is whom a row may stand for.
    """
    from scipy.sparse import csc_matrix

    rows, few, step = len(points), min(neighbours, len(points)), max(1, CELLS // max(len(points), 1))
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(0, rows, step):
        products = points[start : start + step] @ points.T
        least = np.partition(products, rows - few, axis=1)[:, rows - few]
        near = products >= np.maximum(least, 1.0)[:, None]
        for i in np.flatnonzero(near.sum(1) > few):
            ties = np.flatnonzero(near[i] & (products[i] == least[i]))
            near[i, ties[few - int((products[i] > least[i]).sum()) :]] = False
        at = np.flatnonzero(near)
        found.append((products.ravel()[at], at + start * rows))
    if not found:
        return csc_matrix((0, 0))
    value, at = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return csc_matrix((value.astype(np.float64), np.divmod(at, rows)), shape=(rows, rows))


def lazily(graph: csc_matrix, covered: np.ndarray, room: Room) -> list[int]:
    """The greedy algorithm, where a gain is counted again only when it may be the greatest: gains only fall.

    `covered`, [rows], is how well each row is stood for, and kept up to date.
    """
    of = np.repeat(np.arange(len(covered)), np.diff(graph.indptr))
    gains = np.bincount(of, np.maximum(graph.data - covered[graph.indices], 0), len(covered))
    heap = [(-float(gains[i]), int(i)) for i in np.flatnonzero(room.open)]
    heapq.heapify(heap)
    counted, chosen = np.zeros(len(covered), np.int64), list[int]()
    while heap:
        _, best = heap[0]
        if not room.open[best]:
            heapq.heappop(heap)
        elif counted[best] < len(chosen):
            counted[best] = len(chosen)
            heapq.heapreplace(heap, (-_gain(graph, covered, best), best))
        else:
            chosen.append(best)
            room.take(best)
            _cover(graph, covered, best)
    return chosen


def by_samples(graph: csc_matrix, covered: np.ndarray, room: Room, order: np.ndarray, few: int) -> list[int]:
    """The greedy algorithm, where a step looks at the next few of an order."""
    chosen: list[int] = []
    while room.open.any():
        order = order[room.open[order]]
        some, order = np.sort(order[:few]), np.roll(order, -few)
        gains = [_gain(graph, covered, int(i)) for i in some]
        best = int(some[np.argmax(gains)])
        chosen.append(best)
        room.take(best)
        _cover(graph, covered, best)
    return chosen


def _gain(graph: csc_matrix, covered: np.ndarray, i: int) -> float:
    at = slice(graph.indptr[i], graph.indptr[i + 1])
    more = graph.data[at] - covered[graph.indices[at]]
    return float(more[more > 0].sum())


def _cover(graph: csc_matrix, covered: np.ndarray, i: int) -> None:
    at = slice(graph.indptr[i], graph.indptr[i + 1])
    rows = graph.indices[at]
    covered[rows] = np.maximum(covered[rows], graph.data[at])
