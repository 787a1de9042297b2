"""Divergences between the teacher's distribution p and the student's q, one value per place.

All of them take a dense teacher or a stored top-k (`distributions.outcomes`), and two questions of temperature:
`temperature` softens both distributions before they are compared. A gradient then shrinks as 1 / temperature^2;
`times_tau_squared` multiplies the loss by temperature^2, which Hinton et al. do so that a mixture with cross-entropy
keeps its balance, and which GKD, DistiLLM and MiniLLM do not do. At temperature 1 it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveFloat

from pipeline.core.methods import lazy
from pipeline.kinds.objective import Loss, Objective, View, objective

if TYPE_CHECKING:
    import torch

    from pipeline.model import distributions
else:
    torch = lazy("torch")
    distributions = lazy("pipeline.model.distributions")

Share = Annotated[float, Field(gt=0, lt=1)]
READS = ("student_NV", "teacher", "weight_N")


def is_divergence(given: Mapping[str, Any]) -> bool:
    """Whether it is one with these arguments: the released form is not 0 where the student is the teacher."""
    return given["variant"] == "paper"


@objective(reads=READS, item="place", teacher="any", divergence=is_divergence)
def forward(
    *,
    temperature: PositiveFloat = 1.0,
    times_tau_squared: bool = False,
    variant: Literal["paper", "code"] = "paper",
) -> Objective:
    """KL(p || q): the student covers all that the teacher finds likely. The usual distillation loss.

    Paper: Hinton et al. 2015 (arXiv 1503.02531); per token of a language model, Kim and Rush 2016 (arXiv 1606.07947).
    Differs: `variant: code` is the cross-entropy -sum p log q that DistiLLM, TAID and MiniPLM release under this name:
    the teacher's entropy is not subtracted, so the gradient is the same and the number is not.
    """
    return _compare(_between(variant), temperature, times_tau_squared)


@objective(reads=READS, item="place", teacher="any", divergence=True)
def reverse(*, temperature: PositiveFloat = 1.0, times_tau_squared: bool = False) -> Objective:
    """KL(q || p): the student keeps to what the teacher finds likely, and may leave out the rest.

    Paper: Gu et al. 2024, MiniLLM (arXiv 2306.08543), its single-step term.
    Differs: on tokens that are given, not sampled from the student.
    """
    return _compare(lambda log_p, log_q: distributions.kl(log_q, log_p), temperature, times_tau_squared)


@objective(reads=READS, item="place", teacher="any", divergence=True)
def jsd(*, beta: Share = 0.5, temperature: PositiveFloat = 1.0, times_tau_squared: bool = False) -> Objective:
    """Generalised Jensen-Shannon: beta KL(p || m) + (1 - beta) KL(q || m), where m = beta p + (1 - beta) q.

    Paper: Agarwal et al. 2024, GKD (arXiv 2306.13649), eq. 2.
    Differs: beta 0 and 1, where the formula is 0 and the released code puts the two KL instead, are refused: those are
    `divergence.forward` and `divergence.reverse`.
    """

    def between(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
        log_m = distributions.mixture(log_p, log_q, beta)
        return beta * distributions.kl(log_p, log_m) + (1 - beta) * distributions.kl(log_q, log_m)

    return _compare(between, temperature, times_tau_squared)


@objective(reads=READS, item="place", teacher="any", divergence=is_divergence)
def skew_forward(
    *,
    alpha: Share = 0.1,
    temperature: PositiveFloat = 1.0,
    times_tau_squared: bool = False,
    variant: Literal["paper", "code"] = "paper",
) -> Objective:
    """KL(p || alpha p + (1 - alpha) q): forward KL that cannot pass log(1 / alpha).

    Paper: Ko et al. 2024, DistiLLM (arXiv 2402.03898), the skew KL.
    Differs: `variant: code` is the released cross-entropy form, without the teacher's entropy: same gradient.
    """

    def between(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
        return _between(variant)(log_p, distributions.mixture(log_p, log_q, alpha))

    return _compare(between, temperature, times_tau_squared)


@objective(reads=READS, item="place", teacher="any", divergence=True)
def skew_reverse(*, alpha: Share = 0.1, temperature: PositiveFloat = 1.0, times_tau_squared: bool = False) -> Objective:
    """KL(q || (1 - alpha) p + alpha q): reverse KL that cannot pass log(1 / alpha).

    Paper: Ko et al. 2024, DistiLLM (arXiv 2402.03898), the skew reverse KL.
    Differs: nothing. (DistiLLM-2 stops the gradient of q inside the mixture; this does not.)
    """

    def between(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
        return distributions.kl(log_q, distributions.mixture(log_q, log_p, alpha))

    return _compare(between, temperature, times_tau_squared)


def _between(variant: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The divergence, or the cross-entropy that has its gradient."""
    # Looked up when it is called: naming a method must not load torch.
    return lambda log_p, log_q: (distributions.kl if variant == "paper" else distributions.cross)(log_p, log_q)


def _compare(
    between: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], temperature: float, times_tau_squared: bool
) -> Objective:
    scale = temperature**2 if times_tau_squared else 1.0

    def loss(view: View) -> Loss:
        return Loss(between(*distributions.outcomes(view, temperature)) * scale, view.weight_N)

    return loss
