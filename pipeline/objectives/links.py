"""Objectives of links: a place learns from those that it is linked with, such as a node from its neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import PositiveFloat

from pipeline.core.methods import lazy
from pipeline.kinds.objective import DenseTeacher, Loss, Objective, View, objective

if TYPE_CHECKING:
    import torch

    from pipeline.model import distributions
else:
    torch = lazy("torch")
    distributions = lazy("pipeline.model.distributions")

# A logit beyond which a difference says nothing.
MOST = 1e4


@objective(
    reads=("student_NV", "teacher", "links_2E", "weight_N"),
    item="neighbour",
    teacher="all",
    alone=False,
    divergence=False,
)
def low() -> Objective:
    """What neighbours have in common: KL of a place from the teacher's distribution at each place that it is linked
    with, and at itself.

    Paper: Wu et al. 2023 (FF-G2M, AAAI), low-frequency part, as the released code has it.
    Differs: nothing.
    """

    def loss(view: View) -> Loss:
        log_p_NV, log_q_NV = distributions.outcomes(view)
        own_N = torch.arange(len(log_q_NV), device=log_q_NV.device)
        learns_I, told_I = torch.cat([view.links_2E, own_N.expand(2, -1)], 1)
        return Loss(distributions.kl(log_p_NV[told_I], log_q_NV[learns_I]), view.weight_N[learns_I])

    return loss


@objective(
    reads=("student_NV", "teacher", "links_2E", "weight_N"),
    item="link",
    teacher="all",
    alone=False,
    divergence=False,
    shift=False,
)
def high(*, temperature: PositiveFloat = 1.0) -> Objective:
    """How neighbours differ: KL of the softmax of |z - z'| over the temperature, of the logits of the two ends of each
    link, from the teacher's.

    Paper: as `links.low`, high-frequency part.
    Differs: nothing.
    """

    def loss(view: View) -> Loss:
        assert isinstance(view.teacher, DenseTeacher)
        log_p_EV, log_q_EV = (
            _apart(logits_NV.clamp(-MOST, MOST), view.links_2E, temperature)
            for logits_NV in (view.teacher.logits_NV.to(view.student_NV.dtype), view.student_NV)
        )
        return Loss(distributions.kl(log_p_EV, log_q_EV), view.weight_N[view.links_2E[0]])

    return loss


def _apart(logits_NV: torch.Tensor, links_2E: torch.Tensor, temperature: float) -> torch.Tensor:
    one_EV, two_EV = logits_NV[links_2E[0]], logits_NV[links_2E[1]]
    return distributions.log_probs((one_EV - two_EV).abs() / temperature)
