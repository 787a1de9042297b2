"""Objectives over all answers to one prompt at once: how likely each is to be beside the others. Items are sets."""

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


@objective(
    reads=("logprob_N", "reference_N", "example_N", "set_B", "reward_B", "weight_N"),
    item="set",
    alone=False,
    teacher="reference",
    divergence=False,
)
def adpo(
    *,
    tau: PositiveFloat = 0.8,
    reward_scale: PositiveFloat = 0.5,
    target: Literal["soft", "best", "ranking"] = "soft",
    adaptive: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    variant: Literal["paper", "code"] = "paper",
) -> Objective:
    """Cross-entropy from a target over a set's answers to softmax(u), u = (log-probability - the anchor's) / tau.

    The target is softmax(z / reward_scale) of the rewards standardised within their set, or the `best` answers alone,
    or the `ranking` by Plackett and Luce, the mean over the places of it. The anchor is what the term is `against`:
    `start` is fixed, `shadow` follows, and `student` is the student of the moment, for answers that it just drew. A
    set without two different rewards is 0, and the metric `compared` counts the others. `adaptive` raises tau by that
    share of the target's entropy, its largest being 1.
    Paper: Wang et al. 2025, ADPO (arXiv 2510.18913), the listwise form, its anchors and its Plackett-Luce form.
    Differs: of the adaptive tau the part by the answers' reward is left out. The code (verlm, e4883c99) sums an
    answer's log-probabilities where the paper takes the mean, and lowers tau by the entropy.
    """

    def loss(view: View) -> Loss:
        reward_B = view.reward_B.to(view.logprob_N.dtype)
        gain_B = per_example(view.logprob_N - view.reference_N, view.example_N, len(reward_B))
        if variant == "paper":
            gain_B = gain_B / lengths(view).clamp_min(1)
        known_B = reward_B.isfinite()
        same_BB = (view.set_B[:, None] == view.set_B[None, :]) & known_B[:, None] & known_B[None, :]
        above_BB = same_BB & (reward_B[:, None] > reward_B[None, :])
        if target == "ranking":
            beats_B = above_BB.any(1)
            value_B = torch.where(beats_B, _log_sum(gain_B / tau, same_BB & ~above_BB.T) - gain_B / tau, 0)
            value_B = value_B / _sum(beats_B.to(gain_B.dtype), same_BB).clamp_min(1)
        else:
            q_B = _target(reward_B, same_BB, above_BB, reward_scale if target == "soft" else None)
            entropy_B = -_sum(torch.xlogy(q_B, q_B), same_BB) / same_BB.sum(1).clamp_min(2).log()
            u_B = gain_B / (tau * (1 + (adaptive if variant == "paper" else -adaptive) * entropy_B))
            value_B = q_B * (_log_sum(u_B, same_BB) - u_B)
        compared_B = (above_BB | above_BB.T).any(1)
        of_sets = torch.zeros(sets(view), dtype=gain_B.dtype, device=gain_B.device)
        value_S = of_sets.index_add(0, view.set_B, torch.where(compared_B, value_B, 0))
        compared_S = of_sets.index_add(0, view.set_B, compared_B.to(gain_B.dtype)).clamp_max(1)
        return Loss(value_S, set_weight(view, gain_B), {"compared": compared_S})

    return loss


def _target(reward_B: torch.Tensor, same_BB: torch.Tensor, above_BB: torch.Tensor, scale: float | None) -> torch.Tensor:
    """The target's share of every answer in its set: by its standardised reward, or of the best alone; [B]."""
    if scale is None:
        best_B = (~above_BB.T.any(1) & same_BB.any(1)).to(reward_B.dtype)
        return best_B / _sum(best_B, same_BB).clamp_min(1)
    number_B = same_BB.sum(1)
    centred_B = torch.where(same_BB.any(1), reward_B - _sum(reward_B, same_BB) / number_B.clamp_min(1), 0)
    spread_B = (_sum(centred_B.square(), same_BB) / (number_B - 1).clamp_min(1)).sqrt()
    z_B = centred_B / spread_B.clamp_min(TINY) / scale
    return torch.where(same_BB.any(1), (z_B - _log_sum(z_B, same_BB)).exp(), 0)


# What stands for nothing where a quotient or a logarithm is taken.
TINY = 1e-12
LOWEST = -1e30


def _sum(values_B: torch.Tensor, among_BB: torch.Tensor) -> torch.Tensor:
    """For every example the sum over those that it is among, [B]."""
    return torch.where(among_BB, values_B, 0).sum(1)


def _log_sum(values_B: torch.Tensor, among_BB: torch.Tensor) -> torch.Tensor:
    """For every example the log of the sum of exponentials over those that it is among, [B]."""
    return torch.where(among_BB, values_B, LOWEST).logsumexp(1)
