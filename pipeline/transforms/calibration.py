"""Distributions that are as sure as they are right, by outcomes that are known in the table `with`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from pydantic import PositiveFloat, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.transform import Signals, Transform, transform
from pipeline.transforms.subclasses import dense

BINS = 15


@transform(labelled=True, random=False)
def trustworthy(*, least: PositiveFloat = 0.05, most: PositiveFloat = 2.0, steps: PositiveInt = 40) -> Transform:
    """The stored outcomes with probabilities proportional to exp(p / c), at the c whose calibration error is least.

    c is one of `steps` from `least` to `most` in equal ratios, the smallest of those as good; the error is that of the
    likeliest outcome in 15 bins, over the known outcomes of `with`. All mass is on the stored outcomes.
    Paper: Shum et al. 2024 (FIRST, arXiv 2408.12168), trustworthy maximisation; the error is that of Guo et al. 2017.
    Differs: their grid was not read.
    """
    if most < least:
        raise Refused(f"calibration.trustworthy: `most` is {most:g}, below `least`, {least:g}")

    def make(signals: Signals, beside: Signals, seed: int) -> Signals:
        def at(c: float, given: Signals) -> np.ndarray:
            return _softmax(np.exp(given.logprobs_NK.astype(np.float64)) / c)

        c = _best(beside, np.geomspace(least, most, steps), lambda c: calibration_error(at(c, beside)[:, 0], beside))
        return signals.with_outcomes(signals.ids_NK, at(c, signals))

    return make


@transform(labelled=True, topk=False, random=False)
def temperature(
    *,
    by: Literal["likelihood", "error"] = "likelihood",
    least: PositiveFloat = 0.2,
    most: PositiveFloat = 10.0,
    steps: PositiveInt = 80,
) -> Transform:
    """Whole distributions at the temperature that suits the known outcomes of `with` best, of `steps` in equal ratios.

    Best is the greatest `likelihood`, or the least calibration `error`.
    Paper: Guo et al. 2017 (On calibration of modern neural networks, arXiv 1706.04599), section 4.2.
    Differs: a grid in place of a line search.
    """
    if most < least:
        raise Refused(f"calibration.temperature: `most` is {most:g}, below `least`, {least:g}")

    def make(signals: Signals, beside: Signals, seed: int) -> Signals:
        def loss(tau: float) -> float:
            if by == "error":
                return calibration_error(_softmax(beside.logprobs_NK / tau)[:, 0], beside)
            known = beside.target_N >= 0
            p_NV = _softmax(dense(beside)[known] / tau)
            return float(-np.log(np.maximum(p_NV[np.arange(len(p_NV)), beside.target_N[known]], 1e-300)).mean())

        tau = _best(beside, np.geomspace(least, most, steps), loss)
        return signals.with_outcomes(signals.ids_NK, _softmax(signals.logprobs_NK.astype(np.float64) / tau))

    return make


def calibration_error(sure_N: np.ndarray, signals: Signals) -> float:
    """How far the confidence in the likeliest outcome is from how often it is right, over 15 bins of confidence."""
    known = signals.target_N >= 0
    sure_N, right_N = sure_N[known], (signals.ids_NK[:, 0] == signals.target_N)[known]
    bin_N = np.minimum((sure_N * BINS).astype(int), BINS - 1)
    gap_B = np.bincount(bin_N, sure_N, BINS) - np.bincount(bin_N, right_N, BINS)
    return float(np.abs(gap_B).sum() / max(len(sure_N), 1))


def _best(beside: Signals, grid: np.ndarray, loss: Callable[[float], float]) -> float:
    return float(grid[int(np.argmin([loss(float(each)) for each in grid]))])


def _softmax(logits: np.ndarray) -> np.ndarray:
    grown = np.exp(logits - logits.max(1, keepdims=True))
    return grown / grown.sum(1, keepdims=True)
