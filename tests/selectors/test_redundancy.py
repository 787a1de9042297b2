"""What is too like another goes, as the plain algorithms say, whatever the size of the pieces it is done in."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.kinds.selector import Budget
from pipeline.selectors import redundancy
from pipeline.selectors.diversity import quantised
from tests.selectors.given import rows


def planted(seed: int, alike: float = 0.995) -> np.ndarray:
    """30 directions, and a near copy of each of the first ten, 30 places further."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(30, 24))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    beside = rng.normal(size=(10, 24))
    beside -= (beside * points[:10]).sum(1, keepdims=True) * points[:10]
    beside /= np.linalg.norm(beside, axis=1, keepdims=True)
    return np.concatenate([points, alike * points[:10] + (1 - alike**2) ** 0.5 * beside])


@pytest.mark.parametrize("clusters", [1, 4, None])
@pytest.mark.parametrize("seed", range(3))
def test_of_near_copies_one_is_kept(clusters: int | None, seed: int) -> None:
    given = rows(40, v=planted(seed))
    for epsilon, copies in ((0.01, 10), (0.003, 0)):
        decision = redundancy.semdedup(vector="v", epsilon=epsilon, clusters=clusters)(given, Budget(), 0)
        assert (decision.kept[:10].astype(int) + decision.kept[30:] == (1 if copies else 2)).all()
        assert decision.kept[10:30].all() and (decision.reason == "too_alike").sum() == copies


def test_hard_keeps_the_farther_from_the_centre_and_easy_the_nearer() -> None:
    points = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.12], [1.0, 0.5]])
    for keep, expected in (("hard", [3, 0]), ("easy", [2, 3])):
        choose = redundancy.semdedup(vector="v", epsilon=0.05, clusters=1, keep=keep)
        assert set(np.flatnonzero(choose(rows(4, v=points), Budget(), 0).kept)) == set(expected)


def test_one_that_goes_itself_still_counts_and_a_budget_keeps_the_least_alike() -> None:
    angles = np.deg2rad([0, 15, 30, 70])
    points = np.stack([np.cos(angles), np.sin(angles)], 1)
    # Far from the centre first: 70, 0, 15 and 30 degrees. 30 is near 15 alone, which is near 0.
    choose = redundancy.semdedup(vector="v", epsilon=0.05, clusters=1)
    assert choose(rows(4, v=points), Budget(), 0).reason.tolist() == ["distinct", "too_alike", "too_alike", "distinct"]
    assert np.flatnonzero(choose(rows(4, v=points), Budget(rows=1), 0).kept).tolist() == [3]


@pytest.mark.parametrize("scanned", [1, 7, 1024])
def test_most_alike_before_is_what_it_says(scanned: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redundancy, "SCANNED", scanned)
    points = quantised(planted(1))
    every = redundancy.cosines(points, points)
    expected = [-1.0, *(every[i, :i].max() for i in range(1, 40))]
    np.testing.assert_array_equal(redundancy.most_alike_before(points), expected)
    assert (np.diag(every) == 1).all()


@pytest.mark.parametrize("scanned", [1, 7, 1024])
@pytest.mark.parametrize("budget", [Budget(), Budget(rows=1), Budget(tokens=60), Budget(rows=9, one_per_prompt=False)])
def test_deita_scans_by_score_and_compares_with_what_is_kept(
    scanned: int, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redundancy, "SCANNED", scanned)
    rng = np.random.default_rng(4)
    points, tokens = planted(2), rng.integers(3, 12, 40)
    complexity, quality = rng.integers(1, 7, 40).astype(float), rng.integers(1, 7, 40).astype(float)
    quality[3] = np.nan
    prompts = np.array([f"p{i % 25:02d}" for i in range(40)], object)
    given = rows(40, v=points, c=complexity, q=quality, prompts=prompts, tokens=tokens)
    every = redundancy.cosines(quantised(points), quantised(points))
    kept: list[int] = []
    left, score = budget.limit, np.nan_to_num(complexity * quality, nan=-1.0)
    for i in np.argsort(-score, kind="stable")[:-1]:
        free = not budget.one_per_prompt or prompts[i] not in prompts[kept]
        if every[i, kept].max(initial=-1.0) <= 0.3 and free and budget.cost_of(given)[i] <= left:
            kept.append(int(i))
            left -= budget.cost_of(given)[i]
    decision = redundancy.deita(complexity="c", quality="q", vector="v", alike=0.3)(given, budget, 0)
    assert set(np.flatnonzero(decision.kept)) == set(kept)
    assert decision.reason[3] == "no_value"


def test_k_means_finds_planted_clusters_and_stands_what_has_none() -> None:
    rng = np.random.default_rng(0)
    of = np.repeat(np.arange(4), 25)
    points = quantised(np.eye(4, 6)[of] + rng.normal(0, 0.05, (100, 6)))
    cluster, centres = redundancy.by_angle(points, 4)
    assert len(centres) == 4 and all(len(set(cluster[of == c])) == 1 for c in range(4)) and len(set(cluster)) == 4
    assert len(redundancy.by_angle(points[:0], 4)[0]) == 0
    assert redundancy.by_angle(points[:2], 9)[0].tolist() == [0, 1]
