"""Objectives over how places lie to each other, in the student's states as in the teacher's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat, PositiveFloat

from pipeline.core.methods import lazy
from pipeline.kinds.objective import Loss, Objective, Tap, TeacherTap, View, objective

if TYPE_CHECKING:
    import torch

    from pipeline.model import distributions
else:
    torch = lazy("torch")
    distributions = lazy("pipeline.model.distributions")


# What a place that is not attended to has in place of an inner product: no more than -inf, but with a gradient of 0.
NEVER = -1e30


@objective(
    reads=("features", "teacher_features", "weight_N"), item="place", teacher="features", divergence=False, alone=False
)
def gram(*, tap: Tap = "last", teacher_tap: TeacherTap = "last") -> Objective:
    """The squared distance between the similarities of a place to all of the step, of the student's states and of the
    teacher's; a place's similarities are inner products, brought to length 1.

    No projection: both matrices are [N, N], whatever the widths.
    Paper: Tung and Mori 2019 (similarity-preserving distillation, arXiv 1907.09682), equations 1 to 4.
    Differs: over the places of a step, which for a language model are tokens; a value is N times a row's share of
    theirs, so that the mean over places is theirs.
    """
    return Gram(tap, teacher_tap)


class Gram:
    """See `gram`."""

    def __init__(self, tap: str, teacher_tap: str) -> None:
        self.taps, self.teacher_taps = (tap,), (teacher_tap,)

    def __call__(self, view: View) -> Loss:
        states_ND = view.features[self.taps[0]]
        teachers_NE = view.teacher_features[self.teacher_taps[0]].detach().to(states_ND.dtype)
        apart_NN = _similar(states_ND) - _similar(teachers_NE)
        return Loss(apart_NN.square().sum(1) / max(len(states_ND), 1), view.weight_N)


def _similar(states_ND: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(states_ND @ states_ND.T, dim=1)


@objective(
    reads=("features", "teacher_features", "example_N", "weight_N"),
    item="place",
    teacher="features",
    divergence=False,
    alone=False,
)
def within(*, tap: Tap, teacher_tap: TeacherTap) -> Objective:
    """KL from the teacher's of how a place attends to the places of its example: a softmax of the inner products of its
    tap with theirs, over the root of the width. A term each for queries, keys and values, at any layers and widths.

    Paper: Wang et al. 2021 (MiniLMv2, arXiv 2012.15828), self-attention relations; Xu et al. 2022 (AutoDistil,
    NeurIPS), of a sub-network for every step.
    Differs: one relation head in place of many; AutoDistil's released code takes the squared distance of the products
    and not the KL of its paper.
    """
    return Within(tap, teacher_tap)


class Within:
    """See `within`."""

    def __init__(self, tap: str, teacher_tap: str) -> None:
        self.taps, self.teacher_taps = (tap,), (teacher_tap,)

    def __call__(self, view: View) -> Loss:
        mine_ND = view.features[self.taps[0]]
        theirs_NE = view.teacher_features[self.teacher_taps[0]].detach().to(mine_ND.dtype)
        apart_NN = view.example_N[:, None] != view.example_N
        log_p_NN, log_q_NN = (
            (states @ states.T / states.shape[1] ** 0.5).masked_fill(apart_NN, NEVER).log_softmax(1)
            for states in (theirs_NE, mine_ND)
        )
        return Loss(distributions.kl(log_p_NN, log_q_NN), view.weight_N)


@objective(reads=("student_NV", "teacher", "weight_N"), item="place", teacher="all", alone=False, divergence=True)
def dist(*, beta: NonNegativeFloat = 1.0, gamma: NonNegativeFloat = 1.0, temperature: PositiveFloat = 1.0) -> Objective:
    """How little the student's probabilities correlate with the teacher's: `beta` times 1 less the correlation over the
    outcomes of a place, and `gamma` times the mean over outcomes of 1 less that over the places of the step; times the
    squared temperature.

    A correlation over the places needs all of them, [places, outcomes], at once: over 32k outcomes 2.0 times the cost
    of forward KL. It is made for classes.

    Paper: Huang et al. 2022 (DIST, arXiv 2205.10536), equations 8 to 10.
    Differs: nothing.
    """

    def loss(view: View) -> Loss:
        log_p, log_q = distributions.outcomes(view, temperature)
        p_NV, q_NV = log_p.exp(), log_q.exp()
        within_N = 1 - distributions.correlation(p_NV, q_NV, 1)
        over = (1 - distributions.correlation(p_NV, q_NV, 0)).mean()
        return Loss((beta * within_N + gamma * over) * temperature**2, view.weight_N)

    return loss
