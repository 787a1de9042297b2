"""Objectives that change while a student is trained: what it is compared with moves from itself to its teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pipeline.core.methods import lazy
from pipeline.kinds.objective import Loss, Objective, Reduced, Step, View, objective

if TYPE_CHECKING:
    import torch

    from pipeline.model import distributions
else:
    torch = lazy("torch")
    distributions = lazy("pipeline.model.distributions")

Share = Annotated[float, Field(ge=0, le=1)]


@objective(reads=("student_NV", "teacher", "weight_N"), item="place", teacher="any", divergence=False, surrogate=True)
def taid(
    *, start: Share = 0.4, end: Share = 1.0, rate: Annotated[float, Field(ge=0)] = 5e-4, momentum: Share = 0.99
) -> Objective:
    """The cross-entropy to a distribution between student and teacher, softmax((1 - t) student + t teacher) of logits.

    t rises from `start` to `end`, at least linearly in the steps, faster while the loss falls (`rate`).
    Paper: Shing et al. 2025, TAID (arXiv 2501.16937), eq. 3 and algorithm 1.
    Differs: t moves once per step of the optimizer, by the loss of the whole step over all ranks; the released code
    moves it in every call, validation included. A stored teacher's tokens beyond its K are one outcome, for both.
    """
    return Taid(start, end, rate, momentum)


class Taid:
    """The schedule's state: t, the loss of the last step, and the momentum of its relative fall."""

    def __init__(self, start: float, end: float, rate: float, momentum: float) -> None:
        self.start, self.end, self.rate, self.beta = start, end, rate, momentum
        self.t, self.last, self.fall = start, math.nan, 0.0

    def __call__(self, view: View) -> Loss:
        log_p, log_q = distributions.outcomes(view)
        between = distributions.log_probs((1 - self.t) * log_q.detach() + self.t * log_p)
        return Loss(distributions.cross(between, log_q), view.weight_N)

    def update(self, step: Step, reduced: Reduced) -> None:
        """Take in the loss of a step; the first one is only remembered."""
        if not math.isnan(self.last):
            relative = (self.last - reduced.value) / (self.last + 1e-15)
            self.fall = self.beta * self.fall + (1 - self.beta) * relative
            faster = self.rate * (1 - self.t) / (1 + math.exp(-self.fall))
            linear = self.start + (self.end - self.start) * step.number / step.of
            self.t = min(self.end, max(linear, self.t + faster))
        self.last = reduced.value

    def state(self) -> dict[str, torch.Tensor]:
        """What `restore` needs."""
        return {"state": torch.tensor([self.t, self.last, self.fall], dtype=torch.float64)}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from a saved state."""
        self.t, self.last, self.fall = state["state"].tolist()


@objective(
    reads=("student_NV", "target_N", "teacher", "weight_N", "step"), item="place", teacher="all", divergence=False
)
def ps_kd(*, alpha: Share = 0.8) -> Objective:
    """Cross-entropy to a mixture of the target and what the student itself said after the last epoch.

    The share of the latter is alpha (e + 1) / E in epoch e of E; in the first epoch the target stands alone. The entry
    needs `shadow: {every: epoch, decay: 0}`.
    Paper: Kim et al. 2021, PS-KD (arXiv 2006.12000), eq. 5 and 8.
    Differs: the student of the last epoch is kept and asked, where the paper keeps its answers: the same numbers where
    an example is seen in one form.
    """

    def loss(view: View) -> Loss:
        epoch, epochs = view.step.epoch, view.step.epochs
        hard_N = -distributions.log_prob_of(view.student_NV, view.target_N)
        if epoch == 0:
            return Loss(hard_N, view.weight_N)
        share = alpha * (epoch + 1) / epochs
        log_p, log_q = distributions.outcomes(view)
        return Loss((1 - share) * hard_N + share * distributions.cross(log_p, log_q), view.weight_N)

    return loss
