"""Readers: how sure a model is while it reads an answer, from the likeliest outcomes at each of its tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.backend import Reading, Want
from pipeline.kinds.reader import Reader, reader


@reader(want=Want(top_k=2))
def margin() -> Reader:
    """By how much the likeliest outcome is ahead of the second, in points of 100: the mean over the answer's tokens.

    Paper: Liao et al. 2025 (NesyCD, arXiv 2409.13203), the gate of what is looked up: `margin.score <= 68`.
    Differs: over the whole of an answer that is there; theirs is over 16 tokens that the student draws.
    """

    def read(reading: Reading) -> dict[str, Any]:
        # Where a model has one outcome there is no second, and its probability is 0.
        first_N, second_N, *_ = np.pad(_likeliest(reading), ((0, 0), (0, 1))).T
        return _mean("margin_sum", 100 * (first_N - second_N))

    return read


@reader(want=Want(top_k=1))
def likeliest() -> Reader:
    """The probability of the likeliest outcome, whether or not the answer has it: the mean over the answer's tokens.

    Paper: Hendrycks & Gimpel 2017 (arXiv 1610.02136), the maximum softmax probability.
    Differs: a mean over tokens, where a classifier has one place.
    """

    def read(reading: Reading) -> dict[str, Any]:
        return _mean("likeliest_sum", _likeliest(reading)[:, 0])

    return read


@reader(want=lambda arguments: Want(top_k=arguments["top"]))
def entropy(*, top: PositiveInt = 20) -> Reader:
    """The entropy of the model's distribution in nats: the mean over the answer's tokens.

    Paper: Malinin & Gales 2021 (arXiv 2002.07650), the entropy per token of autoregressive models.
    Differs: all outcomes beyond the `top` likeliest count as one, so it is at most the entropy of all.
    """

    def read(reading: Reading) -> dict[str, Any]:
        p_NK = np.column_stack([_likeliest(reading), _set(reading.tail_mass)])
        return _mean("entropy_sum", -(p_NK * np.log(np.where(p_NK > 0, p_NK, 1.0))).sum(1))

    return read


@reader(want=lambda arguments: Want(top_k=arguments["outcomes"]))
def distribution(*, outcomes: PositiveInt) -> Reader:
    """The model's distribution over all its outcomes as `vector`, the mean over the answer's tokens; the score is its
    greatest probability.

    `outcomes` is how many the model has: the classes of a classifier, or a small vocabulary.

    Paper: Tang et al. 2023 (KD3, arXiv 2307.11469): `combined(teacher.vector, student.vector)` is what their selection
    is by; PCoreSet and LEEP read it, too.
    Differs: a mean over tokens, where a classifier has one place.
    """

    def read(reading: Reading) -> dict[str, Any]:
        taken_NK, p_NK = _set(reading.topk_ids), _likeliest(reading)
        if taken_NK.max() >= outcomes:
            raise Refused(
                f"the model has more than {outcomes} outcomes: number {taken_NK.max()} is among the likeliest. Write "
                f"into `outcomes` how many it has"
            )
        vector = np.bincount(taken_NK.ravel(), p_NK.ravel(), outcomes) / len(p_NK)
        return {"score": vector.max(), "quantities": [("tokens", float(len(p_NK)))], "vector": vector.tolist()}

    return read


def _likeliest(reading: Reading) -> np.ndarray:
    """The probabilities of the likeliest outcomes at each token, the greatest first, [N, K]."""
    return np.exp(_set(reading.topk_logprobs).astype(np.float64))


def _mean(name: str, values_N: np.ndarray) -> dict[str, Any]:
    """A row whose score is the mean of a number of each token; the quantities are their sum and how many there are."""
    total, tokens = float(values_N.sum()), float(len(values_N))
    return {"score": total / tokens, "quantities": [(name, total), ("tokens", tokens)]}


def _set(array: np.ndarray | None) -> np.ndarray:
    assert array is not None
    return array
