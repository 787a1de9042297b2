"""Objectives that learn the token that stands there, without a teacher's distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveFloat

from pipeline.core.methods import lazy
from pipeline.kinds.objective import Loss, Objective, View, objective

if TYPE_CHECKING:
    import torch

    from pipeline.model import distributions
else:
    torch = lazy("torch")
    distributions = lazy("pipeline.model.distributions")

# The least reward of an answer that counts as right.
RIGHT = 0.5


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


@objective(
    reads=("student_NV", "target_N", "example_N", "length_B", "weight_N"),
    item="place",
    per="set",
    teacher="none",
    divergence=False,
)
def together() -> Objective:
    """Cross-entropy of all of a prompt's examples, its answer and its rationale, each as the mean over its own places.

    A long rationale so counts as much as a short answer, and a prompt whose rationale was not verified has its answer
    alone. The sum is divided by the number of prompts.
    Paper: Hu et al. 2024, Visual Program Distillation (arXiv 2312.03052), its two losses.
    Differs: on texts; a part's weight is that of its rows.
    """

    def loss(view: View) -> Loss:
        value_N = -distributions.log_prob_of(view.student_NV, view.target_N)
        return Loss(value_N / view.length_B[view.example_N], view.weight_N)

    return loss


@objective(
    reads=("logprob_N", "example_N", "length_B", "set_B", "reward_B", "weight_N"),
    item="set",
    alone=False,
    teacher="none",
    divergence=False,
)
def contrastive(
    *,
    beta: Annotated[float, Field(ge=0)] = 0.2,
    margin: PositiveFloat = 3.0,
    negatives: Literal["max", "min"] = "max",
) -> Objective:
    """The right rationale that is nearest to the student is learnt, and a wrong one is unlearnt up to a margin.

    An example's distance is its mean cross-entropy. A set's value is the least of those with a reward of 0.5 or
    more, less beta times the largest (`negatives: min`: the least) of the others' less the margin where that is below
    0: a wrong rationale further off than the margin moves nothing. Each side counts by the weight of its row, which is
    the discriminator's word on it: what a positive is worth, and how wrong a negative is.
    Paper: Wang et al. 2024, QCRD (arXiv 2405.13014).
    Differs: the discriminator is any score that the rows' weights were made of, not trained beside the student; whether
    the paper takes the largest or the least of the negatives could not be read. A side without rows is 0.
    """

    def loss(view: View) -> Loss:
        sets = int(view.set_B.max()) + 1 if len(view.set_B) else 0
        zeros_B = view.logprob_N.new_zeros(len(view.reward_B))
        far_B = zeros_B.index_add(0, view.example_N, -view.logprob_N) / view.length_B.clamp_min(1)
        weight_B = zeros_B.index_copy(0, view.example_N, view.weight_N)
        stands_B = view.length_B > 0
        value_S = view.logprob_N.sum() * 0 + view.logprob_N.new_zeros(sets)
        for side_B, largest in ((view.reward_B >= RIGHT, False), (view.reward_B < RIGHT, negatives == "max")):
            first = _ends(far_B.detach(), stands_B & side_B, view.set_B, largest)
            far, wrong = far_B[first], view.reward_B[first] < RIGHT
            moved = torch.where(wrong, -beta * (far - margin).clamp_max(0), far)
            value_S = value_S.index_add(0, view.set_B[first], weight_B[first] * moved)
        return Loss(value_S, torch.ones_like(value_S))

    return loss


def _ends(values_B: torch.Tensor, chosen_B: torch.Tensor, set_B: torch.Tensor, largest: bool) -> torch.Tensor:
    """The example of each set with the least value (or the largest) of those that are chosen; the first of equals."""
    found: dict[int, int] = {}
    for example in chosen_B.nonzero()[:, 0][values_B[chosen_B].argsort(stable=True, descending=largest)].tolist():
        found.setdefault(int(set_B[example]), example)
    return torch.tensor(sorted(found.values()), dtype=torch.long, device=set_B.device)
