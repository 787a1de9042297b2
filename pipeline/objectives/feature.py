"""Objectives over what student and teacher compute at a place: states, compared through a trained projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pipeline.core.methods import lazy
from pipeline.kinds.objective import Loss, Objective, Tap, TeacherTap, View, objective

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@objective(
    reads=("features", "teacher_features", "own", "weight_N"), item="place", teacher="features", divergence=False
)
def hidden(
    *, tap: Tap = "last", teacher_tap: TeacherTap = "last", distance: Literal["mse", "cosine"] = "mse"
) -> Objective:
    """The distance between the teacher's state and a linear projection of the student's, which is trained with it.

    `mse` is the mean over the teacher's width of the squared difference; `cosine` is 1 less their cosine.
    Paper: Romero et al. 2015, FitNets (arXiv 1412.6550), eq. 3, with a linear regressor.
    Differs: the regressor is trained with the student and not before it, as most later code does.
    """
    return Hidden(tap, teacher_tap, distance)


class Hidden:
    """The objective; `modules` makes its projection."""

    def __init__(self, tap: str, teacher_tap: str, distance: str) -> None:
        self.taps, self.teacher_taps, self.distance = (tap,), (teacher_tap,), distance

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """The projection from the student's width to the teacher's."""
        return torch.nn.Linear(widths[self.taps[0]], teacher_widths[self.teacher_taps[0]])

    def __call__(self, view: View) -> Loss:
        mine_ND = view.own(view.features[self.taps[0]])
        teachers_ND = view.teacher_features[self.teacher_taps[0]].detach().to(mine_ND.dtype)
        if self.distance == "mse":
            return Loss((mine_ND - teachers_ND).square().mean(1), view.weight_N)
        return Loss(1 - torch.nn.functional.cosine_similarity(mine_ND, teachers_ND, dim=1), view.weight_N)


@objective(
    reads=("features", "teacher_features", "own", "weight_N"), item="place", teacher="features", divergence=False
)
def nd(*, tap: Tap = "last", teacher_tap: TeacherTap = "last", mean_tap: TeacherTap = "class_mean") -> Objective:
    """Norm and direction: 1 - <s, e> / max(|s|, |t|), where e is the unit vector of the teacher's mean of the class
    (`classes.mean`), t the teacher's state and s a projection of the student's, which is trained with it.

    A state shorter than the teacher's grows, and every state turns to its class.
    Paper: Wang et al. 2023 (ND loss, arXiv 2305.17007), equation 9, with the maximum of the released code.
    Differs: a linear projection, also where the widths agree.
    """
    return NormDirection(tap, teacher_tap, mean_tap)


class NormDirection:
    """See `nd`; `modules` makes its projection."""

    def __init__(self, tap: str, teacher_tap: str, mean_tap: str) -> None:
        self.taps, self.teacher_taps = (tap,), (teacher_tap, mean_tap)

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """The projection from the student's width to the teacher's."""
        return torch.nn.Linear(widths[self.taps[0]], teacher_widths[self.teacher_taps[0]])

    def __call__(self, view: View) -> Loss:
        mine_ND = view.own(view.features[self.taps[0]])
        theirs_ND, means_ND = (view.teacher_features[t].detach().to(mine_ND.dtype) for t in self.teacher_taps)
        along_N = (mine_ND * torch.nn.functional.normalize(means_ND, dim=1)).sum(1)
        longest_N = torch.maximum(mine_ND.norm(dim=1), theirs_ND.norm(dim=1)).clamp_min(1e-12)
        return Loss(1 - along_N / longest_N, view.weight_N)
