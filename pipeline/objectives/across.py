"""Objectives beside a teacher of other tokens. A place is a group of tokens that spell the same on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat

from pipeline.core.methods import lazy
from pipeline.kinds.objective import Loss, Objective, View, objective

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@objective(
    reads=("student_NV", "other", "weight_N"),
    item="place",
    teacher="other",
    across="position",
    divergence=False,
)
def uld(*, temperature: PositiveFloat = 1.0) -> Objective:
    """The sum of distances between the probabilities of both, each sorted, as if all outcomes were equally far apart.

    The first token of one is held against the first of the other, and so on, whatever they say; which outcome is which
    does not count. Beside cross-entropy its weight is 1.5 in the released recipe.
    Paper: Boizard et al. 2024, ULD (arXiv 2402.12030), eq. 5 and 6.
    Differs: nothing.
    """

    def loss(view: View) -> Loss:
        q_NV = (view.student_NV / temperature).softmax(1)
        p_NU = (view.other.logits_NU / temperature).softmax(1).to(q_NV.dtype)
        return Loss(sorted_distance(p_NU, q_NV), view.weight_N)

    return loss


@objective(
    reads=("student_NV", "other", "weight_N"),
    item="place",
    teacher="other",
    across="bytes",
    divergence=False,
)
def gold(
    *,
    beta: Annotated[float, Field(ge=0, le=1)] = 0.5,
    hybrid: bool = True,
    matched: NonNegativeFloat | None = None,
    unmatched: NonNegativeFloat | None = None,
) -> Objective:
    """Jensen-Shannon over the outcomes that both can spell, and ULD over all others, of groups of whole bytes.

    A group's distribution is that of its last token, times the probability of those before it. `matched` and
    `unmatched` weigh the two; unset they are the share of the teacher's outcomes that have a match, and the rest. At
    `beta` 0 it is forward KL, at 1 reverse. Without `hybrid` all outcomes are compared as in ULD.
    Paper: Patiño et al. 2025, GOLD (Hugging Face, on-policy distillation for any model family), as TRL computes it.
    Differs: outcomes match where they spell the same bytes, however their tokenizers write them; the form `observed`
    is left out, which compares a place late. As there, what is matched is not normalised, so a value may be below 0.
    """

    def loss(view: View) -> Loss:
        log_q_NV = view.student_NV.log_softmax(1) + view.other.own_before_N[:, None]
        log_p_NU = view.other.logits_NU.to(log_q_NV.dtype).log_softmax(1) + view.other.before_N[:, None]
        if not hybrid:
            return Loss(sorted_distance(log_p_NU.exp(), log_q_NV.exp()), view.weight_N)
        outcome_U = view.other.outcome_U
        has_U, taken_V = outcome_U >= 0, outcome_U.new_zeros(log_q_NV.shape[1], dtype=torch.bool)
        taken_V[outcome_U[has_U]] = True
        share = float(has_U.float().mean())
        near_N = _jsd(log_p_NU[:, has_U].clamp_min(LOWEST), log_q_NV[:, outcome_U[has_U]].clamp_min(LOWEST), beta)
        far_N = sorted_distance(log_p_NU[:, ~has_U].exp(), log_q_NV[:, ~taken_V].exp())
        by = share if matched is None else matched, 1 - share if unmatched is None else unmatched
        return Loss(by[0] * near_N + by[1] * far_N, view.weight_N)

    return loss


# A log-probability that is none.
LOWEST = -1e6


def sorted_distance(p_NU: torch.Tensor, q_NV: torch.Tensor) -> torch.Tensor:
    """The sum of distances between two rows, each from its largest on, the shorter filled up with zeros, [N]."""
    width = max(p_NU.shape[1], q_NV.shape[1])
    p, q = (torch.nn.functional.pad(x.sort(1, descending=True)[0], (0, width - x.shape[1])) for x in (p_NU, q_NV))
    return (p - q).abs().sum(1)


def _jsd(log_p: torch.Tensor, log_q: torch.Tensor, beta: float) -> torch.Tensor:
    if beta in (0.0, 1.0):
        log_p, log_q = (log_p, log_q) if beta == 0 else (log_q, log_p)
        return (log_p.exp() * (log_p - log_q)).sum(1)
    share = torch.tensor([beta, 1 - beta], dtype=log_q.dtype, device=log_q.device).log()
    log_m = torch.logaddexp(log_p + share[0], log_q + share[1])
    return (beta * log_p.exp() * (log_p - log_m) + (1 - beta) * log_q.exp() * (log_q - log_m)).sum(1)
