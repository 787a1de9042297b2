"""Objectives over pairs of answers to one prompt that are no DPO (`preference.dpo`). Items are sets of examples.

A set's value is the mean over its pairs of answers with different rewards, and 0 where it has none; the metric `pairs`
counts them. `against` says who the reference is: the student as it began (`start`), or the teacher, as in LLaVA-MoD.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from pipeline.core.methods import lazy
from pipeline.kinds.objective import Loss, Objective, View, objective
from pipeline.objectives.divergence import of_pair, sides
from pipeline.objectives.preference import pairs, per_example

if TYPE_CHECKING:
    import torch

    from pipeline.model import distributions
else:
    torch = lazy("torch")
    distributions = lazy("pipeline.model.distributions")


@objective(
    reads=("logprob_N", "reference_N", "example_N", "set_B", "reward_B", "weight_N"),
    item="set",
    alone=False,
    teacher="reference",
    divergence=False,
)
def ipo(*, beta: PositiveFloat = 0.1) -> Objective:
    """(margin - 1 / (2 beta))^2: the better answer is to gain so much on the worse one, and no more.

    The margin is as DPO's, of sums of log-probabilities; unlike there it stays bounded where rewards never err.
    Paper: Azar et al. 2023, IPO (arXiv 2310.12036), eq. 17.
    Differs: a set may hold more than two answers.
    """

    def loss(view: View) -> Loss:
        better_P, worse_P, set_P = pairs(view.set_B, view.reward_B)
        gain_B = per_example(view.logprob_N - view.reference_N, view.example_N, len(view.reward_B))
        return over_pairs(view, (gain_B[better_P] - gain_B[worse_P] - 1 / (2 * beta)).square(), set_P)

    return loss


@objective(
    reads=("logprob_N", "example_N", "set_B", "reward_B", "weight_N"),
    item="set",
    alone=False,
    teacher="none",
    divergence=False,
)
def simpo(
    *,
    beta: PositiveFloat = 2.0,
    margin_share: NonNegativeFloat = 0.25,
    length: Literal["mean", "sum"] = "mean",
) -> Objective:
    """-log sigmoid(beta (better - worse - margin_share)), of mean log-probabilities of a token, without a reference.

    `margin_share` is the paper's gamma / beta. With `length: sum` and no margin it is DPO whose reference finds all
    answers equally likely.
    Paper: Meng et al. 2024, SimPO (arXiv 2405.14734), eq. 6; the defaults are its released ones, which it tunes.
    Differs: a set may hold more than two answers.
    """

    def loss(view: View) -> Loss:
        better_P, worse_P, set_P = pairs(view.set_B, view.reward_B)
        said_B = per_example(view.logprob_N, view.example_N, len(view.reward_B))
        if length == "mean":
            said_B = said_B / lengths(view).clamp_min(1)
        margin_P = beta * (said_B[better_P] - said_B[worse_P] - margin_share)
        return over_pairs(view, -torch.nn.functional.logsigmoid(margin_P), set_P)

    return loss


@objective(
    reads=("logprob_N", "reference_N", "example_N", "set_B", "reward_B", "weight_N"),
    item="set",
    alone=False,
    teacher="reference",
    divergence=False,
    whole=True,
    surrogate=True,
)
def kto(*, beta: PositiveFloat = 0.1, variant: Literal["paper", "code"] = "paper") -> Objective:
    """Better answers are to gain on what worse ones gain on average, and these to lose on what better ones do.

    The mean of 1 - sigmoid(beta (gain - other)) for the better answer and 1 - sigmoid(beta (other - gain)) for the
    worse; `other` is the mean gain of all worse, or all better, answers that are looked at together, not below 0. With
    the teacher as reference it is the preference stage of LLaVA-MoD (Shu et al. 2024, arXiv 2408.15881).
    Paper: Ethayarajh et al. 2024, KTO (arXiv 2402.01306), eq. 7 and 8, in the form over pairs of its released code.
    Differs: that code lets the gradient flow through `other` too, which the paper rules out.
    """

    def loss(view: View) -> Loss:
        better_P, worse_P, set_P = pairs(view.set_B, view.reward_B)
        gain_B = per_example(view.logprob_N - view.reference_N, view.example_N, len(view.reward_B))
        better_P, worse_P = gain_B[better_P], gain_B[worse_P]
        up, down = (gain_P.sum().clamp_min(0) / max(len(gain_P), 1) for gain_P in (better_P, worse_P))
        if variant == "paper":
            up, down = up.detach(), down.detach()
        value_P = 1 - (torch.sigmoid(beta * (better_P - down)) + torch.sigmoid(beta * (up - worse_P))) / 2
        return over_pairs(view, value_P, set_P)

    return loss


@objective(
    reads=("student_NV", "target_N", "teacher", "example_N", "length_B", "set_B", "reward_B", "settled_NS", "weight_N"),
    item="place",
    per="set",
    alone=False,
    teacher="any",
    divergence=False,
)
def skewed(
    *,
    alpha: Annotated[float, Field(gt=0.01, lt=1)] = 0.1,
    beta: Annotated[float, Field(ge=0, le=2)] = 1.0,
) -> Objective:
    """`divergence.pair` with an alpha of its own for every answer: the less, the less teacher and student differ on it.

    An answer's gap is |mean p_y - mean q_y| over its places, and its alpha 1 - (1 - alpha) c / gap, between 0.01 and
    `alpha`, where c is the mean gap of the step's answers of its side.
    Paper: Ko et al. 2025, DistiLLM-2 (arXiv 2503.07067), its adaptive alpha.
    Differs: the released code has it switched off, and that c is the mean over a step's answers is our reading. It
    looks at both models twice: 1.9 times the cost of forward KL.
    """
    return Skewed(alpha, beta)


class Skewed:
    """See `skewed`; what it measures of a place is how far the two are apart on what stands there."""

    def __init__(self, alpha: float, beta: float) -> None:
        self.alpha, self.beta = alpha, beta

    def measure(self, view: View) -> torch.Tensor:
        """p_y - q_y."""
        p, q = (log.exp() for log in distributions.target_apart(view))
        return p[:, :1] - q[:, :1]

    def settle(self, measured_NM: torch.Tensor, view: View) -> torch.Tensor:
        """The alpha of the answer that a place stands in."""
        length_B = view.length_B.clamp_min(1).to(measured_NM.dtype)
        gap_B = (per_example(measured_NM[:, 0], view.example_N, len(view.length_B)) / length_B).abs()
        alpha_B = torch.full_like(gap_B, self.alpha)
        for side_B in sides(view.set_B, view.reward_B):
            usual = gap_B[side_B].mean()
            alpha_B[side_B] = (1 - (1 - self.alpha) * usual / (gap_B[side_B] + 1e-5)).clamp(0.01, self.alpha)
        return alpha_B[view.example_N][:, None]

    def __call__(self, view: View) -> Loss:
        log_p, log_q = distributions.outcomes(view)
        value_N = of_pair(view, log_p, log_q, view.settled_NS, self.beta)
        return Loss(value_N, view.weight_N, {"alpha": view.settled_NS[:, 0]})


def over_pairs(view: View, value_P: torch.Tensor, set_P: torch.Tensor) -> Loss:
    """The mean of every set's pairs, 0 where there is none; a set weighs as its examples do on average."""
    number_S = value_P.new_zeros(sets(view)).index_add(0, set_P, torch.ones_like(value_P))
    value_S = torch.zeros_like(number_S).index_add(0, set_P, value_P) / number_S.clamp_min(1)
    return Loss(value_S, set_weight(view, value_P), {"pairs": number_S.detach()})


def sets(view: View) -> int:
    """How many sets there are."""
    return int(view.set_B.max()) + 1 if len(view.set_B) else 0


def lengths(view: View) -> torch.Tensor:
    """How many places every example has, [B]."""
    return torch.bincount(view.example_N, minlength=len(view.reward_B))


def set_weight(view: View, like: torch.Tensor) -> torch.Tensor:
    """The mean weight of every set's examples, [S]."""
    weight_B = like.new_zeros(len(view.reward_B)).index_copy(0, view.example_N, view.weight_N.to(like.dtype))
    total_S = like.new_zeros(sets(view)).index_add(0, view.set_B, weight_B)
    size_S = like.new_zeros(sets(view)).index_add(0, view.set_B, torch.ones_like(weight_B))
    return total_S / size_S.clamp_min(1)
