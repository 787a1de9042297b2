"""What a transform is: from a whole table of signals, beside another, to the signals that are trained on instead.

A row's signals may hang on every row of the table: the mean of its class, the direction in which its class varies, a
temperature that was chosen on rows whose outcome is known. B examples, N places of all of them, K stored outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from pipeline.core.methods import marker


@dataclass(frozen=True)
class Signals:
    """A table of signals: its examples in the order of their ids, their places one after another.

    `row_N` is the example that a place stands in, `target_N` the outcome that stands there, -1 where it is unknown.
    Outcomes are in the order of their probability. `features` are the teacher's taps, [N, D] each. `said_B` is what
    else was asked about each example's prompt, where an entry names it (`answers`): question to short answers.
    """

    example_B: np.ndarray
    weight_B: np.ndarray
    row_N: np.ndarray
    target_N: np.ndarray
    ids_NK: np.ndarray
    logprobs_NK: np.ndarray
    tail_N: np.ndarray
    target_logprob_N: np.ndarray
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    said_B: np.ndarray = field(default_factory=lambda: np.empty(0, object))

    def with_feature(self, name: str, value: np.ndarray) -> Signals:
        """The same with one tap more."""
        return replace(self, features={**self.features, name: value.astype(np.float32)})

    def with_outcomes(self, ids_NK: np.ndarray, p_NK: np.ndarray, tail_N: np.ndarray | None = None) -> Signals:
        """The same with other outcomes and their probabilities, in any order; what they leave of 1 is the tail, unless
        it is known better, and the outcome that stands there has the log-probability that it has among them."""
        order = np.argsort(-p_NK, axis=1, kind="stable")
        p_NK = np.take_along_axis(p_NK, order, 1)
        with np.errstate(divide="ignore"):
            logprobs_NK = np.maximum(np.log(p_NK), LEAST)
        ids_NK, logprobs_NK = np.take_along_axis(ids_NK, order, 1).astype(np.int32), logprobs_NK.astype(np.float32)
        listed = ids_NK == self.target_N[:, None]
        tail_N = 1 - p_NK.sum(1) if tail_N is None else tail_N
        return replace(
            self,
            ids_NK=ids_NK,
            logprobs_NK=logprobs_NK,
            target_logprob_N=np.where(listed.any(1), np.where(listed, logprobs_NK, 0).sum(1), self.target_logprob_N),
            tail_N=np.clip(tail_N, 0, 1).astype(np.float32),
        )


# The logarithm of a probability that is none.
LEAST = -1e4


class Transform(Protocol):
    """Makes signals of signals."""

    def __call__(self, signals: Signals, beside: Signals, seed: int, /) -> Signals:
        """The same examples and places, with other signals; `beside` is another table, or the same one."""
        ...


# Traits: `aligned`: `beside` is another teacher's on the same examples. `adds`, the taps that it adds, or a function
# from its arguments to these. `asked`: it looks at `said_B`. `labelled`: whether it looks at outcomes that are known,
# which `beside` must have. `topk: False`: it needs whole distributions. `random`: whether the seed matters.
transform = marker("transform")
