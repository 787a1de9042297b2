"""Tables of signals, small enough to be reckoned by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.core.methods import find
from pipeline.kinds.transform import Signals


def signals(
    p_NV: np.ndarray, target_N: Sequence[int] | np.ndarray, k: int | None = None, **features: np.ndarray
) -> Signals:
    """An example of one place for each distribution, of which k outcomes are stored."""
    target_N, count = np.asarray(target_N), len(p_NV)
    given = Signals(
        np.array([f"{i:05d}" for i in range(count)]), np.ones(count, np.float32), np.arange(count), target_N,
        np.empty(0), np.empty(0), np.empty(0),
        np.log(p_NV[np.arange(count), np.maximum(target_N, 0)]).astype(np.float32),
        {name: value.astype(np.float32) for name, value in features.items()},
    )  # fmt: skip
    order = np.argsort(-p_NV, axis=1, kind="stable")[:, : k or p_NV.shape[1]]
    return given.with_outcomes(order, np.take_along_axis(p_NV, order, 1))


def dense(made: Signals) -> np.ndarray:
    """Probabilities [N, V] in the order of the outcomes, of a table that stores all."""
    found = np.empty(made.ids_NK.shape)
    np.put_along_axis(found, made.ids_NK.astype(int), np.exp(made.logprobs_NK.astype(np.float64)), 1)
    return found


def build(use: str, **arguments: Any) -> Any:
    method = find("transform", use)
    return method.factory(**method.arguments.model_validate(arguments).model_dump())
