"""Policy gradients: objectives on what the student itself said, by how good it was (feeds `sampled.*`, `rollout.*`).

An answer is learnt from in the step that draws it, so the policy that drew it is the student of the moment: there is no
older one, and no ratio to clip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveFloat

from pipeline.core.methods import lazy
from pipeline.kinds.objective import Loss, Objective, View, objective
from pipeline.objectives.pairs import lengths, set_weight, sets
from pipeline.objectives.preference import per_example

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

Share = Annotated[float, Field(ge=0, le=1)]


@objective(
    reads=("logprob_N", "reference_N", "example_N", "weight_N"),
    item="place",
    alone=False,
    teacher="reference",
    divergence=False,
    surrogate=True,
)
def minillm(
    *,
    gamma: Share = 0.95,
    mixed: Annotated[float, Field(ge=0, lt=1)] = 0.2,
    clip: PositiveFloat = 100.0,
    length: Literal["remaining", "discounted", "none"] = "remaining",
    whitened: bool = True,
    variant: Literal["paper", "code"] = "paper",
) -> Objective:
    """-w A log q(token): reverse KL of whole answers, where A is what the rest of the answer is worth to the teacher.

    A token's reward is log p - log q, not beyond `clip`; A is the sum of those after it, discounted by `gamma`, over
    how many they are, standardised over the step's places. w = q / ((1 - mixed) q + mixed p) corrects for a teacher
    that took part in the sampling (`sampled.with_teacher`, the same `mixed`). The single-step term is
    `divergence.reverse`, as a term beside this one.
    Paper: Gu et al. 2024, MiniLLM (arXiv 2306.08543), eq. 4 to 7.
    Differs: nothing is clipped beside the reward. The code counts a token's own reward into its return, and whitens
    over the padding too, which nobody wants; TRL divides by the sum of the discounts (`discounted`).
    """

    def loss(view: View) -> Loss:
        gain_N = view.reference_N - view.logprob_N.detach()
        reward_N, ones_N = gain_N.clamp(-clip, clip), torch.ones_like(gain_N)
        discounts = {"remaining": 1.0, "discounted": gamma, "none": 0.0}
        over_N = later(ones_N, view.example_N, discounts[length])
        value_N = later(reward_N, view.example_N, gamma) / over_N
        if variant == "paper":
            follows_N = view.example_N.roll(-1) == view.example_N
            follows_N[-1:] = False
            value_N = torch.where(follows_N, value_N.roll(-1), 0)
        if whitened and len(value_N):
            centred_N = value_N - value_N.mean()
            value_N = centred_N / centred_N.square().mean().sqrt().clamp_min(SMALL)
        w_N = 1 / (1 - mixed + mixed * gain_N.clamp_max(LARGE).exp())
        return Loss(-w_N * value_N * view.logprob_N, view.weight_N, {"reward": reward_N})

    return loss


@objective(
    reads=("logprob_N", "example_N", "set_B", "reward_B", "weight_N"),
    item="set",
    alone=False,
    teacher="none",
    divergence=False,
)
def group_relative(*, standardised: bool = True, length: Literal["mean", "sum"] = "mean") -> Objective:
    """-A log q of every answer, the mean over a set: A is its reward less the set's mean, over their deviation.

    A set whose rewards are all alike says nothing and is 0; the metric `compared` counts the others. Rewards that are
    right or wrong, and no term beside this one, are AlphaMed's minimal form (Liu et al. 2025, arXiv 2505.17952); a term
    `divergence.reverse` against `start` keeps the student where it began.
    Paper: Shao et al. 2024, GRPO (arXiv 2402.03300), eq. 3 at the policy that drew the answers.
    Differs: `standardised: false` and `length: sum` are Dr. GRPO's (Liu et al. 2025, arXiv 2503.20783).
    """

    def loss(view: View) -> Loss:
        reward_B = view.reward_B.to(view.logprob_N.dtype)
        said_B = per_example(view.logprob_N, view.example_N, len(reward_B))
        if length == "mean":
            said_B = said_B / lengths(view).clamp_min(1)
        known_B = reward_B.isfinite()
        same_BB = (view.set_B[:, None] == view.set_B[None, :]) & known_B[:, None] & known_B[None, :]
        number_B = same_BB.sum(1)
        mean_B = torch.where(same_BB, reward_B, 0).sum(1) / number_B.clamp_min(1)
        compared_B = (same_BB & (reward_B[:, None] != reward_B[None, :])).any(1)
        centred_B = torch.where(compared_B, reward_B - mean_B, 0)
        if standardised:
            variance_B = torch.where(same_BB, centred_B.square(), 0).sum(1) / (number_B - 1).clamp_min(1)
            centred_B = centred_B / variance_B.sqrt().clamp_min(SMALL)
        of_sets = said_B.new_zeros(sets(view))
        value_S = of_sets.index_add(0, view.set_B, -centred_B * said_B / number_B.clamp_min(1))
        compared_S = torch.zeros_like(of_sets).index_add(0, view.set_B, compared_B.to(of_sets.dtype)).clamp_max(1)
        return Loss(value_S, set_weight(view, said_B), {"compared": compared_S})

    return loss


# A deviation that is none, and what still has an exponential in float32.
SMALL, LARGE = 1e-8, 80.0


def later(values_N: torch.Tensor, example_N: torch.Tensor, gamma: float) -> torch.Tensor:
    """For every place the sum over it and the places of its example after it, discounted by their distance, [N]."""
    found_N, span = values_N, 1
    # Of 1, 2, 4, ... places at a time: no discount is divided by, so none is lost.
    while span < len(values_N):
        follows_N = example_N[span:] == example_N[:-span]
        more_N = torch.where(follows_N, gamma**span * found_N[span:], 0)
        found_N, span = torch.cat([found_N[:-span] + more_N, found_N[-span:]]), 2 * span
    return found_N
