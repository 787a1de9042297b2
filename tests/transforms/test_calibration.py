"""Calibration: a teacher that is too sure is made as sure as it is right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.core.methods import find
from pipeline.errors import Refused
from pipeline.kinds.transform import Signals
from pipeline.transforms.calibration import calibration_error
from tests.transforms.tables import build, dense, signals


def too_sure(seed: int, places: int = 2000, outcomes: int = 5) -> Signals:
    """Right in 70 of 100 places, and 95 sure in each."""
    draw = np.random.default_rng(seed)
    said, right = draw.integers(0, outcomes, places), draw.random(places) < 0.7
    p = np.full((places, outcomes), 0.05 / (outcomes - 1))
    p[np.arange(places), said] = 0.95
    return signals(p, np.where(right, said, (said + 1 + draw.integers(0, outcomes - 1, places)) % outcomes))


@pytest.mark.parametrize("use", ["calibration.trustworthy", "calibration.temperature"])
def test_the_error_of_a_teacher_that_is_too_sure_falls_to_less_than_half(use: str) -> None:
    known, other = too_sure(0), too_sure(1)
    made = build(use)(other, known, 0)
    before, after = (calibration_error(np.exp(each.logprobs_NK[:, 0]), other) for each in (other, made))
    assert before == pytest.approx(0.25, abs=0.03) and after < before / 2
    assert (made.ids_NK[:, 0] == other.ids_NK[:, 0]).all()
    np.testing.assert_allclose(np.exp(made.logprobs_NK).sum(1), 1, atol=1e-6)


def test_trustworthy_is_a_softmax_of_probabilities() -> None:
    """FIRST's formula on the stored outcomes, whatever mass the others have."""
    given = replace(signals(np.array([[0.6, 0.3, 0.1]]), [0]), tail_N=np.array([0.2], np.float32))
    made = build("calibration.trustworthy", least=0.5, most=0.5, steps=1)(given, given, 0)
    expected = np.exp(np.array([0.6, 0.3, 0.1]) / 0.5)
    np.testing.assert_allclose(dense(made)[0], expected / expected.sum(), rtol=1e-5)
    assert made.tail_N[0] < 1e-6 and made.target_logprob_N[0] == made.logprobs_NK[0, 0]


def test_temperature_is_found_again() -> None:
    """Outcomes drawn from the teacher at temperature 2 say 2."""
    draw = np.random.default_rng(2)
    logits = draw.normal(size=(6000, 4)) * 4
    true = np.exp(logits / 2)
    true /= true.sum(1, keepdims=True)
    target = (true.cumsum(1) < draw.random((6000, 1))).sum(1)
    sharp = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    made = build("calibration.temperature")(signals(sharp, target), signals(sharp, target), 0)
    tau = (logits[:, 0] - logits[:, 1]) / (np.log(dense(made)[:, 0]) - np.log(dense(made)[:, 1]))
    assert np.median(tau) == pytest.approx(2, rel=0.1)


def test_the_error_by_hand() -> None:
    """Two bins: sure 0.9 and right once of two, sure 0.5 and right."""
    given = signals(np.array([[0.9, 0.1], [0.9, 0.1], [0.5, 0.5], [0.3, 0.7]]), [0, 1, 0, -1])
    sure = np.exp(given.logprobs_NK[:, 0].astype(np.float64))
    assert calibration_error(sure, given) == pytest.approx((0.8 + 0.5) / 3, abs=1e-6)


@pytest.mark.parametrize("use", ["trustworthy", "temperature"])
def test_a_grid_from_more_to_less_is_refused(use: str) -> None:
    method = find("transform", f"calibration.{use}")
    with pytest.raises(Refused, match="is 1, below `least`, 2"):
        method.factory(**method.arguments.model_validate({"least": 2.0, "most": 1.0}).model_dump())
