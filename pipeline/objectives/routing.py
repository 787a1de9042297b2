"""Objectives of a choice at every place: among several teachers, or among the experts of a student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from pipeline.core.methods import lazy
from pipeline.kinds.objective import Loss, Objective, Tap, TeacherTap, View, objective

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@objective(
    reads=("student_NV", "features", "teacher_features", "own", "weight_N"),
    item="place",
    teacher="features",
    alone=False,
    divergence=False,
)
def gate(
    *,
    tap: Tap = "last",
    teacher_tap: TeacherTap = "classifier",
    second_tap: TeacherTap = "second",
    temperature: PositiveFloat = 4.0,
    balance: NonNegativeFloat = 0.1,
) -> Objective:
    """Forward KL from each of two teachers, whose logits are the taps, times the part that a gate gives it, times the
    squared temperature; and `balance` times how uneven the parts' means over the step are, from 0 to 1, so that neither
    teacher is forgotten.

    The gate is a linear map of the student's state, which is trained with it. It learns from the same loss, so a place
    goes to the teacher that the student can follow. `merge.taps` lays one teacher's logits beside another's.

    Paper: Li et al. 2025 (MST-Distill, arXiv 2507.07015), the router over several teachers.
    Differs: parts are weights with a gradient, where the released code picks the largest, so that its router learns
    from the balance alone; teachers are not masked before.
    """
    return Gate(tap, (teacher_tap, second_tap), temperature, balance)


class Gate:
    """See `gate`; `modules` makes the gate."""

    def __init__(self, tap: str, teacher_taps: tuple[str, str], temperature: float, balance: float) -> None:
        self.taps, self.teacher_taps = (tap,), teacher_taps
        self.temperature, self.balance = temperature, balance

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """From the student's state to a part for each teacher."""
        return torch.nn.Linear(widths[self.taps[0]], len(self.teacher_taps))

    def __call__(self, view: View) -> Loss:
        part_NM = view.own(view.features[self.taps[0]].detach()).softmax(1)
        # What the student holds for impossible costs much, and not infinitely much.
        log_q_NV = (view.student_NV / self.temperature).log_softmax(1).clamp_min(-1e30)
        values = []
        for tap in self.teacher_taps:
            log_p_NV = (view.teacher_features[tap].detach().to(log_q_NV.dtype) / self.temperature).log_softmax(1)
            values.append((log_p_NV.exp() * (log_p_NV - log_q_NV)).sum(1))
        mean_M = part_NM.sum(0) / max(len(part_NM), 1)
        uneven = 2 * mean_M.square().sum() - 1
        value_N = (part_NM * torch.stack(values, 1)).sum(1) * self.temperature**2
        return Loss(value_N + self.balance * uneven, view.weight_N)


@objective(reads=("features", "weight_N"), item="place", teacher="none", alone=False, divergence=False)
def balance(*, tap: Tap, chosen: PositiveInt = 2) -> Objective:
    """How unevenly a router, whose logits are the tap, uses its E experts: E times the sum over them of the share of
    all choices that fall on one, `chosen` at a place, and its probability there. It is 1 where all are used alike, and
    E where one is alone; gradient flows through the probabilities.

    Paper: Fedus et al. 2021 (Switch Transformer, arXiv 2101.03961), eq. 4, as in Shu et al. 2024 (LLaVA-MoD, arXiv
    2408.15881).
    Differs: the tokens are those that are learnt, in place of all; shares are of one micro-batch.
    """
    return Balance((tap,), chosen)


class Balance:
    """See `balance`."""

    def __init__(self, taps: tuple[str], chosen: int) -> None:
        self.taps, self.chosen = taps, chosen

    def __call__(self, view: View) -> Loss:
        probability_NE = view.features[self.taps[0]].softmax(1)
        picked_NK = probability_NE.detach().topk(self.chosen, 1).indices
        share_E = torch.bincount(picked_NK.flatten(), minlength=probability_NE.shape[1]) / max(picked_NK.numel(), 1)
        each_NE = probability_NE * share_E.to(probability_NE.dtype)
        return Loss(each_NE.sum(1) * probability_NE.shape[1], view.weight_N)
