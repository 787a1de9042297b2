"""Farthest first is the plain algorithm's choice, however it is counted, and covers what it should."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline.errors import Refused
from pipeline.kinds.selector import Budget, Room
from pipeline.laws.selector import candidates
from pipeline.selectors import diversity
from tests.selectors.given import rows

BUDGETS = [Budget(rows=1), Budget(rows=25), Budget(tokens=200), Budget(rows=50, one_per_prompt=False), Budget()]
EVERY = {"vector": "vector", "labelled": "none"}


def plain(points: np.ndarray, start: list[int], room: Room) -> list[int]:
    """The definition: farthest first, the lower place of several, the first open row where there is none."""
    chosen = list(start)
    scale = (points**2).sum(1).max() or 1.0
    while room.open.any():
        squared = np.square(points[:, None].astype(float) - points[chosen].astype(float)).sum(2).min(1, initial=np.inf)
        chosen.append(int(np.where(room.open, (squared / scale).round(9), -1.0).argmax()))
        room.take(chosen[-1])
    return chosen[len(start) :]


POINTS = {
    "with copies": candidates(1)["vector"],
    "on a line": np.random.default_rng(0).random((80, 1)),
    "all the same": np.ones((80, 3)),
    "at the origin": np.zeros((80, 3)),
    "huge": 1e20 * candidates(2)["vector"],
    "tiny": 1e-20 * candidates(2)["vector"],
    # Squared distances to what is chosen differ in the ninth place, which single precision does not see.
    "nearly alike": np.random.default_rng(0).choice([-1.0, 1.0], (80, 32))
    * (1 + 1e-8 * np.random.default_rng(1).integers(0, 9, (80, 1))),
}


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("pool", [1, 3, 16, 4096])
def test_it_is_the_plain_greedy_algorithm(
    pool: int, points: str, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"POOL": pool, "COUNTED": 7, "BLOCK": 10}.items():
        monkeypatch.setattr(diversity, name, value)
    given, start = candidates(1), np.zeros(80, bool)
    for labelled in ([], [3, 50]):
        start[labelled] = True
        found = diversity.farthest(POINTS[points], start, Room(given, budget, ~start))
        assert found == plain(POINTS[points], labelled, Room(given, budget, ~start))


def test_single_precision_of_many_rows_chooses_as_double() -> None:
    points = np.random.default_rng(0).normal(size=(5000, 48)).astype(np.float32)
    given, nothing = rows(5000), np.zeros(5000, bool)
    found = diversity.farthest(points, nothing, Room(given, Budget(rows=200), ~nothing))
    room, chosen = Room(given, Budget(rows=200), ~nothing), [0]
    room.take(0)
    nearest = np.full(5000, np.inf)
    while room.open.any():
        nearest = np.minimum(nearest, np.square(points.astype(float) - points[chosen[-1]]).sum(1))
        chosen.append(int(np.where(room.open, nearest, -1.0).argmax()))
        room.take(chosen[-1])
    assert found == chosen


@pytest.mark.parametrize("seed", range(5))
def test_k_center_covers_within_twice_the_optimum(seed: int) -> None:
    given = candidates(seed, prompts=12, siblings=1)
    points = given["vector"]

    def radius(chosen: list[int]) -> float:
        return float(np.linalg.norm(points[:, None] - points[chosen], axis=2).min(1).max())

    kept = diversity.k_center(**EVERY)(given, Budget(rows=3), 0).kept
    optimum = min(radius(list(c)) for c in itertools.combinations(range(12), 3))
    assert radius(np.flatnonzero(kept).tolist()) <= 2 * optimum + 1e-9


@pytest.mark.parametrize("method", [diversity.k_center, diversity.disparity_min])
def test_one_of_each_cluster_is_taken_before_a_second(method: diversity.Selector) -> None:
    rng = np.random.default_rng(1)
    cluster = np.arange(120) % 12
    points = 10 * np.eye(12)[cluster] + rng.normal(0, 0.1, (120, 12))
    kept = method(**EVERY)(rows(120, vector=points), Budget(rows=12), 0).kept
    assert sorted(cluster[kept]) == list(range(12))


def test_disparity_min_sees_directions_alone() -> None:
    given = candidates(4)
    longer = rows(80, vector=given["vector"] * np.random.default_rng(0).uniform(0.1, 9, (80, 1)))
    same = rows(80, vector=given["vector"] / np.linalg.norm(given["vector"], axis=1, keepdims=True))
    longer["vector"][7] = 0.0
    same["vector"][7] = np.nan
    found = [
        diversity.disparity_min(**EVERY)(longer, Budget(rows=20), 0),
        diversity.k_center(**EVERY)(same, Budget(rows=20), 0),
    ]
    assert np.array_equal(found[0].kept, found[1].kept) and found[0].reason[7] == "no_value"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_not_chosen(value: float) -> None:
    points = np.random.default_rng(0).normal(size=(30, 4))
    points[[0, 4], 1] = value
    decision = diversity.k_center(**EVERY)(rows(30, vector=points), Budget(rows=28), 0)
    assert decision.kept.sum() == 28 and decision.reason[[0, 4]].tolist() == ["no_value"] * 2


@pytest.mark.parametrize("points", [[[0.5, 0.6]], [[1.5, -0.5]]])
def test_pcoreset_refuses_what_is_no_distribution(points: list[list[float]]) -> None:
    with pytest.raises(Refused, match="'vector' is not a distribution for 1 answers, for example 000000"):
        diversity.pcoreset(**EVERY)(rows(1, vector=np.array(points)), Budget(), 0)


def test_whole_numbers_have_products_that_no_order_changes() -> None:
    points = diversity.quantised(np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32))
    assert (points == points.round()).all() and (np.square(points, dtype=np.float64).sum(1) <= 4096**2).all()
    shuffled = np.random.default_rng(1).permutation(384)
    assert np.array_equal(points @ points.T, points[:, shuffled] @ points[:, shuffled].T)
    assert np.array_equal(points @ points.T, points.astype(np.float64) @ points.astype(np.float64).T)
