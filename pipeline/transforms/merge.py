"""Two teachers' signals on the same examples as one; more teachers are a chain of such entries.

Of a stored top-k an outcome that only one teacher stores has, for the other, no probability but in its tail: the sum of
what is known is a lower bound, exact where all outcomes are stored, and for the outcome that stands there always.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveFloat

from pipeline.kinds.objective import Tap
from pipeline.kinds.transform import LEAST, Signals, Transform, transform

PartOfOne = Annotated[float, Field(gt=0, lt=1)]


@transform(aligned=True, random=False)
def mean(*, share: PartOfOne = 0.5) -> Transform:
    """The mean of both distributions, in which the teacher of `with` has a `share`.

    Paper: You et al. 2017 (Learning from multiple teacher networks), averaged outputs; Hinton et al. 2015 (arXiv
    1503.02531), section 2, the arithmetic mean of an ensemble.
    Differs: nothing.
    """
    return _merged(lambda both: np.full(len(both.ids_NK), share))


@transform(aligned=True, random=False)
def agreement(*, share: PartOfOne = 0.5, power: PositiveFloat = 1.0) -> Transform:
    """The mean of both distributions, and an example's weight times its teachers' agreement: 1 less the Jensen-Shannon
    divergence in bits, as the mean over its places, to a `power`.

    Paper: none; examples on which teachers differ count less, as in the co-training of Blum and Mitchell 1998.
    Differs: nothing.
    """
    together = _merged(lambda both: np.full(len(both.ids_NK), share))

    def make(signals: Signals, beside: Signals, seed: int) -> Signals:
        alike_N = 1 - divergence(_both(signals, beside))
        places_B = np.bincount(signals.row_N, minlength=len(signals.weight_B))
        alike_B = np.bincount(signals.row_N, alike_N, len(signals.weight_B)) / np.maximum(places_B, 1)
        made = together(signals, beside, seed)
        return replace(made, weight_B=(signals.weight_B * alike_B**power).astype(np.float32))

    return make


@transform(aligned=True, random=False)
def confidence() -> Transform:
    """The mean of both distributions, in which a teacher has the more the likelier it holds what stands there; equal
    parts where that is unknown.

    Paper: Zhang et al. 2022 (CA-MKD, arXiv 2201.00007), equation 3: 1 - softmax of the cross-entropies, of two
    teachers the probability of the label over the sum of both.
    Differs: nothing.
    """

    def share(both: Both) -> np.ndarray:
        p_N, q_N = both.target_2N
        known = both.target_N >= 0
        return np.where(known, q_N / np.maximum(p_N + q_N, 1e-30), 0.5)

    return _merged(share)


@transform(aligned=True, adds=lambda arguments: (arguments["name"],), random=False)
def taps(*, tap: Tap = "last", name: str = "second") -> Transform:
    """The first teacher's signals, and beside them a tap of the second one's under a `name` of its own.

    Paper: none by itself. Ma et al. 2024 (GPFM, arXiv 2407.18449) teach a student the states of several experts.
    Differs: nothing.
    """
    return lambda signals, beside, seed: signals.with_feature(name, beside.features[tap])


@dataclass(frozen=True)
class Both:
    """What two teachers say of the outcomes that either stores, [N, J]; one that stands twice is -1 the second time.
    `tail_2N` is what each says of all others: its own tail, not 1 less the sum, which of all outcomes is rounding."""

    ids_NK: np.ndarray
    p_2NK: np.ndarray
    tail_2N: np.ndarray
    target_N: np.ndarray
    target_2N: np.ndarray


def _both(signals: Signals, beside: Signals) -> Both:
    ids_NK = np.concatenate([signals.ids_NK, beside.ids_NK], 1).astype(np.int64)
    at, width = np.argsort(ids_NK, axis=1, kind="stable"), signals.ids_NK.shape[1]
    ids_NK = np.take_along_axis(ids_NK, at, 1)
    own = np.concatenate(
        [np.exp(signals.logprobs_NK.astype(np.float64)), np.exp(beside.logprobs_NK.astype(np.float64))], 1
    )
    p_NK = np.take_along_axis(own, at, 1)
    p_2NK = np.stack([np.where(at < width, p_NK, 0), np.where(at < width, 0, p_NK)])
    twice = ids_NK[:, 1:] == ids_NK[:, :-1]
    p_2NK[:, :, :-1] += np.where(twice, p_2NK[:, :, 1:], 0)
    p_2NK[:, :, 1:][:, twice] = 0
    ids_NK[:, 1:][twice] = -1
    target_2N = np.exp(np.stack([signals.target_logprob_N, beside.target_logprob_N]).astype(np.float64))
    known = (signals.target_N >= 0)[:, None] & (ids_NK == signals.target_N[:, None])
    unlisted = known & (p_2NK == 0)
    p_2NK = np.where(unlisted, target_2N[:, :, None], p_2NK)
    tail_2N = np.stack([signals.tail_N, beside.tail_N]) - np.where(unlisted.any(2), target_2N, 0)
    return Both(ids_NK, p_2NK, np.clip(tail_2N, 0, 1), signals.target_N, target_2N)


def _merged(share: Callable[[Both], np.ndarray]) -> Transform:
    """The mean of two distributions, by the second one's share [N] at every place; as many outcomes as the larger."""

    def make(signals: Signals, beside: Signals, seed: int) -> Signals:
        both, count = _both(signals, beside), max(signals.ids_NK.shape[1], beside.ids_NK.shape[1])
        share_N = share(both)
        p_NK = (1 - share_N)[:, None] * both.p_2NK[0] + share_N[:, None] * both.p_2NK[1]
        tail_N = (1 - share_N) * both.tail_2N[0] + share_N * both.tail_2N[1]
        order = np.argsort(np.where(both.ids_NK < 0, 1, -p_NK), axis=1, kind="stable")
        ids_NK, p_NK = (np.take_along_axis(each, order, 1) for each in (both.ids_NK, p_NK))
        target_N = (1 - share_N) * both.target_2N[0] + share_N * both.target_2N[1]
        log_target_N = np.maximum(np.log(np.maximum(target_N, 1e-300)), LEAST).astype(np.float32)
        made = replace(signals, target_logprob_N=log_target_N)
        return made.with_outcomes(ids_NK[:, :count], p_NK[:, :count], tail_N + p_NK[:, count:].sum(1))

    return make


def divergence(both: Both) -> np.ndarray:
    """The Jensen-Shannon divergence of two teachers at every place, in bits; what neither stores is one outcome."""
    p_2NJ = np.concatenate([both.p_2NK, both.tail_2N[:, :, None]], 2)
    half_NJ = p_2NJ.mean(0)
    ratio = np.where(p_2NJ > 0, p_2NJ / np.where(half_NJ > 0, half_NJ, 1), 1)
    return np.clip((p_2NJ * np.log2(ratio)).sum(2).mean(0), 0, 1)
