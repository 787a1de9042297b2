"""Objectives over how places lie to each other, in the student's states as in the teacher's."""

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
    reads=("features", "teacher_features", "own", "example_N", "weight_N"),
    item="place",
    teacher="features",
    divergence=False,
    alone=False,
)
def trg(
    *,
    tap: Tap = "last",
    teacher_tap: TeacherTap = "last",
    inner: NonNegativeFloat = 1.0,
    local: NonNegativeFloat = 1.0,
    both: NonNegativeFloat = 1.0,
    neighbours: PositiveInt = 8,
    temperature: PositiveFloat = 0.1,
    places: PositiveInt = 256,
) -> Objective:
    """Token relation graph: how places lie to each other inside an example, to their neighbours in the step, and to
    themselves in the other model. `places` of a step take part, evenly spaced; the others are worth 0.

    `inner`: the squared distance of softmax(F F' / sqrt(D)) over the places of an example. `local`: KL(teacher |
    student) of a place's distribution over the teacher's nearest `neighbours`, by exp(-d^2 / 2 s), s the mean squared
    distance. `both`: InfoNCE of a trained projection, in which the same place of the teacher's is the one to find.
    Paper: inspired by Zhang et al. 2023 (Knowledge distillation via token-level relationship graph, arXiv 2306.12442).
    Differs: a summary of it was read, and no code: the direction of the KL is ours, s is the scale of each model's own
    states, and the temperature is constant where theirs is annealed.
    """
    return Graph(tap, teacher_tap, (inner, local, both), neighbours, temperature, places)


class Graph:
    """See `trg`; `modules` makes its projection."""

    def __init__(
        self,
        tap: str,
        teacher_tap: str,
        weights: tuple[float, float, float],
        neighbours: int,
        temperature: float,
        places: int,
    ) -> None:
        self.taps, self.teacher_taps, self.weights = (tap,), (teacher_tap,), weights
        self.neighbours, self.temperature, self.places = neighbours, temperature, places

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """The projection from the student's width to the teacher's."""
        return torch.nn.Linear(widths[self.taps[0]], teacher_widths[self.teacher_taps[0]])

    def __call__(self, view: View) -> Loss:
        of_all = view.features[self.taps[0]]
        count = len(of_all)
        chosen = min(count, self.places)
        at_M = torch.arange(chosen, device=of_all.device) * count // max(chosen, 1)
        states_MD = of_all[at_M]
        teachers_ME = view.teacher_features[self.teacher_taps[0]][at_M].detach().to(states_MD.dtype)
        same_MM = view.example_N[at_M][:, None] == view.example_N[at_M]
        inner, local, both = self.weights
        value_M = (
            inner * (_inside(states_MD, same_MM) - _inside(teachers_ME, same_MM)).square().sum(1)
            + local * self._local(states_MD, teachers_ME)
            + both * self._found(view.own(states_MD), teachers_ME)
        )
        # The mean over all places is that over those which take part.
        value_N = of_all.new_zeros(count).index_put((at_M,), value_M * (count / max(chosen, 1)))
        return Loss(value_N, view.weight_N)

    def _local(self, states_MD: torch.Tensor, teachers_ME: torch.Tensor) -> torch.Tensor:
        k = min(self.neighbours, len(states_MD) - 1)
        if k < 1:
            return states_MD.sum(1) * 0
        far_MM, theirs_MM = _apart(states_MD), _apart(teachers_ME)
        itself = torch.eye(len(states_MD), dtype=torch.bool, device=states_MD.device)
        near_MK = theirs_MM.masked_fill(itself, torch.inf).topk(k, largest=False).indices
        log_p, log_q = (
            (-d_MM.gather(1, near_MK) / (2 * d_MM.mean().clamp_min(1e-12))).log_softmax(1)
            for d_MM in (theirs_MM, far_MM)
        )
        return (log_p.exp() * (log_p - log_q)).sum(1)

    def _found(self, mine_ME: torch.Tensor, teachers_ME: torch.Tensor) -> torch.Tensor:
        one, other = (torch.nn.functional.normalize(x, dim=1) for x in (mine_ME, teachers_ME))
        return -(one @ other.T / self.temperature).log_softmax(1).diagonal()


def _inside(states_MD: torch.Tensor, same_MM: torch.Tensor) -> torch.Tensor:
    """A place's softmax over the places of its example."""
    return (states_MD @ states_MD.T / states_MD.shape[1] ** 0.5).masked_fill(~same_MM, -torch.inf).softmax(1)


def _apart(states_MD: torch.Tensor) -> torch.Tensor:
    """Squared distances."""
    lengths_M = states_MD.square().sum(1)
    return (lengths_M[:, None] + lengths_M - 2 * states_MD @ states_MD.T).clamp_min(0)
