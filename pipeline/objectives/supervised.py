"""Objectives that learn the token that stands there, without a teacher's distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pipeline.core.methods import lazy
from pipeline.kinds.objective import Loss, Objective, View, objective

if TYPE_CHECKING:
    from pipeline.model import distributions
else:
    distributions = lazy("pipeline.model.distributions")


@objective(reads=("student_NV", "target_N", "weight_N"), item="place", teacher="none", divergence=False)
def cross_entropy(*, label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0) -> Objective:
    """-log q(target). With smoothing s, the target has the weight 1 - s, and s is spread evenly over the vocabulary.

    Paper: maximum likelihood; on a teacher's answers it is the sequence-level distillation of Kim and Rush 2016 (arXiv
    1606.07947). Smoothing: Szegedy et al. 2016 (arXiv 1512.00567).
    Differs: smoothing leaves out columns whose logit is -inf, where the usual code gives an infinite loss.
    """

    def loss(view: View) -> Loss:
        value_N = -distributions.log_prob_of(view.student_NV, view.target_N)
        if label_smoothing:
            log_q = view.student_NV.log_softmax(1)
            possible = log_q.isfinite()
            even_N = -log_q.masked_fill(~possible, 0).sum(1) / possible.sum(1)
            value_N = (1 - label_smoothing) * value_N + label_smoothing * even_N
        return Loss(value_N, view.weight_N)

    return loss
