"""Objectives over several answers to one prompt: which of them is to be likelier. Items are sets of examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveFloat

from pipeline.core.methods import lazy
from pipeline.kinds.objective import Loss, Objective, View, objective

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@objective(
    reads=("logprob_N", "reference_N", "example_N", "set_B", "reward_B", "weight_N"),
    item="set",
    alone=False,
    teacher="reference",
    divergence=False,
)
def dpo(*, beta: PositiveFloat = 0.1, label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0) -> Objective:
    """-log sigmoid(beta margin) over every pair of a set with different rewards; a set's value is their mean.

    The margin is how much more the student prefers the better answer to the worse one than the reference does: sums of
    log-probabilities of whole answers. `against: start` is the student as it began, the usual reference.
    Paper: Rafailov et al. 2023, DPO (arXiv 2305.18290), eq. 7; smoothing: its conservative form (Mitchell 2023).
    Differs: a set may hold more than two answers; one without two different rewards has the value 0.
    """
    logsigmoid = torch.nn.functional.logsigmoid

    def loss(view: View) -> Loss:
        better_P, worse_P, set_P = pairs(view.set_B, view.reward_B)
        ratio_B = per_example(view.logprob_N - view.reference_N, view.example_N, len(view.reward_B))
        margin_P = beta * (ratio_B[better_P] - ratio_B[worse_P])
        value_P = -(1 - label_smoothing) * logsigmoid(margin_P) - label_smoothing * logsigmoid(-margin_P)
        sets = int(view.set_B.max()) + 1 if len(view.set_B) else 0
        number_S = torch.zeros(sets).to(value_P).index_add(0, set_P, torch.ones_like(value_P))
        value_S = value_P.new_zeros(sets).index_add(0, set_P, value_P) / number_S.clamp_min(1)
        weight_B = value_P.new_zeros(len(view.reward_B)).index_copy(0, view.example_N, view.weight_N)
        total_S = value_P.new_zeros(sets).index_add(0, view.set_B, weight_B)
        size_S = value_P.new_zeros(sets).index_add(0, view.set_B, torch.ones_like(weight_B))
        return Loss(value_S, total_S / size_S.clamp_min(1), {"pairs": number_S.detach()})

    return loss


def per_example(values_N: torch.Tensor, example_N: torch.Tensor, examples: int) -> torch.Tensor:
    """The sum of each example's values, [B]."""
    return values_N.new_zeros(examples).index_add(0, example_N, values_N)


def pairs(set_B: torch.Tensor, reward_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Every pair of examples of one set with different rewards: the better one, the worse one, their set; each [P]."""
    same = set_B[:, None] == set_B[None, :]
    better_P, worse_P = (same & (reward_B[:, None] > reward_B[None, :])).nonzero(as_tuple=True)
    return better_P, worse_P, set_B[better_P]
