"""Distances of clouds, held against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core.methods import find
from pipeline.errors import Refused
from pipeline.kinds.verifier import OfArrays, measure_of, verifier_named

RING = np.random.default_rng(0).standard_normal((60, 2)).astype(np.float32)


def distance(name: str, made: np.ndarray, true: np.ndarray = RING) -> float:
    judge = verifier_named(f"clouds.{name}")
    assert isinstance(judge, OfArrays)
    return judge.judge({"points": made}, {"points": true}).metric


@pytest.mark.parametrize("name", ["chamfer", "sliced_wasserstein"])
def test_a_distance_of_sets(name: str) -> None:
    order = np.random.default_rng(1).permutation(len(RING))
    assert distance(name, RING[order]) == 0
    assert distance(name, RING + 0.1) == pytest.approx(distance(name, RING, RING + 0.1))
    near, far = (distance(name, RING + moved) for moved in (0.05, 2.0))
    assert 0 < near < far
    assert distance(name, 3 * RING, 3 * RING + 0.3) == pytest.approx(3 * distance(name, RING, RING + 0.1), rel=1e-4)
    traits = find("verifier", f"clouds.{name}").traits
    assert measure_of(f"clouds.{name}") == name and traits["better"] == "lower" and traits["unit"]


def test_of_two_points_it_is_their_distance() -> None:
    one, two = np.zeros((1, 2)), np.array([[3.0, 4.0]])
    assert distance("chamfer", one, two) == 5
    way = distance("sliced_wasserstein", one, two)
    assert way == pytest.approx(5 * 2 / np.pi, rel=0.1), "the mean of |cos|, over directions"


def test_clouds_of_other_sizes_are_compared_by_their_shares() -> None:
    assert distance("sliced_wasserstein", np.repeat(RING, 3, 0)) == pytest.approx(0, abs=1e-12)
    half = np.array([[0.0], [0.0], [1.0]]), np.array([[0.0], [1.0]])
    assert distance("sliced_wasserstein", *half) == pytest.approx(1 / 6)


def test_modes_that_no_point_is_near_are_missed() -> None:
    judge = verifier_named("clouds.sliced_wasserstein {directions: 8}")
    assert isinstance(judge, OfArrays)
    truth = {"points": RING, "centres": np.array([[0.0, 0.0], [100.0, 0.0]])}
    assert judge.judge({"points": RING}, truth).quantities == {"modes": 0.5}


@pytest.mark.parametrize(("made", "said"), [
    ({}, "what was made has no array 'points'"),
    ({"points": RING[:0]}, "what was made has no array 'points'"),
    ({"points": RING[:, :1]}, "points of 1 numbers were made, and those of the truth have 2"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused(made: dict[str, np.ndarray], said: str) -> None:
    judge = verifier_named("clouds.chamfer")
    assert isinstance(judge, OfArrays)
    with pytest.raises(Refused, match=said):
        judge.judge(made, {"points": RING})
