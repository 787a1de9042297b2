"""Set functions are raised as the plain greedy algorithm raises them, on a graph that is the same on any machine."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.kinds.selector import Budget, Candidates, Room
from pipeline.selectors import submodular
from pipeline.selectors.diversity import quantised
from tests.selectors.given import rows

BUDGETS = [Budget(rows=1), Budget(rows=9), Budget(tokens=40), Budget(rows=15, one_per_prompt=False), Budget()]


def clustered(seed: int, count: int = 60, width: int = 8, clusters: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Vectors around centres at right angles, and the cluster of each."""
    rng = np.random.default_rng(seed)
    cluster = np.arange(count) % clusters
    return np.eye(clusters, max(width, clusters))[cluster] + rng.normal(0, 0.05, (count, max(width, clusters))), cluster


def candidates(seed: int) -> Candidates:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(60, 8))
    points[40:] = points[:20]
    prompts = np.array([f"p{i // 3:02d}" for i in range(60)], object)
    return rows(60, v=points, prompts=prompts, tokens=rng.integers(3, 12, 60))


def plain(similarity: np.ndarray, candidates: Candidates, budget: Budget) -> list[int]:
    """The definition: every gain anew at every step, the lower place of several."""
    room, covered, chosen = Room(candidates, budget, np.ones(len(candidates), bool)), np.zeros(len(similarity)), []
    while room.open.any():
        gains = np.maximum(similarity - covered[:, None], 0).sum(0)
        chosen.append(int(np.where(room.open, gains, -1).argmax()))
        room.take(chosen[-1])
        covered = np.maximum(covered, similarity[:, chosen[-1]])
    return chosen


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_facility_location_is_the_plain_greedy_algorithm(seed: int, budget: Budget) -> None:
    given = candidates(seed)
    points = quantised(given["v"])
    kept = submodular.facility_location(vector="v", neighbours=60, labelled="none")(given, budget, 0).kept
    assert set(np.flatnonzero(kept)) == set(plain(np.maximum(points @ points.T, 0), given, budget))


@pytest.mark.parametrize("cells", [1, 130, 1 << 24])
@pytest.mark.parametrize("neighbours", [1, 5, 500])
def test_a_row_has_its_nearest_the_lower_of_several(
    neighbours: int, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submodular, "CELLS", cells)
    points = quantised(candidates(1)["v"])
    products = points @ points.T
    expected = np.zeros_like(products)
    for i, row in enumerate(products):
        nearest = np.argsort(-row, kind="stable")[:neighbours]
        expected[i, nearest] = np.maximum(row[nearest], 0)
    np.testing.assert_array_equal(submodular.nearest(points, neighbours).toarray(), expected)


@pytest.mark.parametrize("method", ["facility_location", "stochastic_greedy"])
@pytest.mark.parametrize("seed", range(3))
def test_each_cluster_is_stood_for_before_one_is_twice(method: str, seed: int) -> None:
    points, cluster = clustered(seed)
    # A sample so large that it misses no cluster.
    more = {"epsilon": 1e-6} if method == "stochastic_greedy" else {}
    choose = getattr(submodular, method)(vector="v", neighbours=60, labelled="none", **more)
    kept = choose(rows(60, v=points), Budget(rows=12), seed).kept
    assert sorted(cluster[kept]) == list(range(12))


def test_few_neighbours_and_small_samples_lose_little() -> None:
    rng = np.random.default_rng(2)
    points = rng.normal(size=(20, 16))[rng.integers(0, 20, 600)] + 0.7 * rng.normal(size=(600, 16))
    unit = quantised(points) / 4094
    similarity = np.maximum(unit @ unit.T, 0)

    def value(method: str, **more: float) -> float:
        choose = getattr(submodular, method)(vector="v", labelled="none", **more)
        return float(similarity[:, choose(rows(600, v=points), Budget(rows=30), 5).kept].max(1).sum())

    exact = value("facility_location", neighbours=600)
    assert value("facility_location", neighbours=60) >= 0.98 * exact
    assert value("stochastic_greedy", neighbours=600, epsilon=0.1) >= 0.95 * exact
    assert value("stochastic_greedy", neighbours=600, epsilon=0.9) < 0.99 * exact


@pytest.mark.parametrize("method", ["facility_location", "stochastic_greedy", "graph_cut", "disparity_sum"])
def test_what_is_there_already_is_not_chosen_again_and_what_has_no_direction_never(method: str) -> None:
    points, cluster = clustered(0)
    points[0], points[1] = 0.0, np.nan
    there = (cluster < 6).astype(float)
    given = rows(60, v=points, there=there)
    decision = getattr(submodular, method)(vector="v", labelled="there")(given, Budget(rows=6), 0)
    assert decision.kept.sum() == 6 and not decision.kept[there > 0].any()
    assert decision.reason[:2].tolist() == ["no_value", "no_value"]
    if method in ("facility_location", "graph_cut"):
        assert sorted(cluster[decision.kept]) == list(range(6, 12))
    nothing = getattr(submodular, method)(vector="v", labelled="none")(rows(3, v=np.zeros((3, 2))), Budget(rows=2), 0)
    assert nothing.reason.tolist() == ["no_value"] * 3


@pytest.mark.parametrize("redundancy", [0.0, 0.4, 2.0])
def test_graph_cut_raises_its_function_greedily(redundancy: float) -> None:
    given = candidates(3)
    unit = quantised(given["v"]).astype(float) / (4096 - 8**0.5 / 2)
    similarity, room = (1 + unit @ unit.T) / 2, Room(given, Budget(rows=9), np.ones(60, bool))
    chosen: list[int] = []

    def value(kept: list[int]) -> float:
        return similarity[:, kept].sum() - redundancy * similarity[np.ix_(kept, kept)].sum()

    while room.open.any():
        gains = [round(value([*chosen, i]), 9) if room.open[i] else -np.inf for i in range(60)]
        chosen.append(int(np.argmax(gains)))
        room.take(chosen[-1])
    kept = submodular.graph_cut(vector="v", redundancy=redundancy, labelled="none")(given, Budget(rows=9), 0).kept
    assert set(np.flatnonzero(kept)) == set(chosen)
