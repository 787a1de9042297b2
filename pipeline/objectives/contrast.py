"""Objectives that tell places apart: each is to be nearer to its own than to all others of the step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from pydantic import PositiveFloat, PositiveInt

from pipeline.core.methods import lazy
from pipeline.kinds.objective import Loss, Objective, Tap, TeacherTap, View, objective

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@objective(
    reads=("features", "teacher_features", "own", "weight_N"),
    item="place",
    teacher="features",
    alone=False,
    divergence=False,
)
def nce(*, tap: Tap = "last", teacher_tap: TeacherTap = "last", temperature: PositiveFloat = 0.07) -> Objective:
    """Cross-entropy of the teacher's state of the same place among those of all places of the step, by the inner
    product with a projection of the student's, both of length 1, over the temperature. The projection is trained too.

    Paper: van den Oord et al. 2018 (InfoNCE, arXiv 1807.03748); Sautier et al. 2022 (SLidR, arXiv 2203.16258).
    Differs: pooling by region is the network's (`points.scene`); the teacher's states are not projected.
    """
    return Nce(tap, teacher_tap, temperature)


class Nce:
    """See `nce`; `modules` makes its projection."""

    def __init__(self, tap: str, teacher_tap: str, temperature: float) -> None:
        self.taps, self.teacher_taps, self.temperature = (tap,), (teacher_tap,), temperature

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """The projection from the student's width to the teacher's."""
        return torch.nn.Linear(widths[self.taps[0]], teacher_widths[self.teacher_taps[0]])

    def __call__(self, view: View) -> Loss:
        mine_ND = _unit(view.own(view.features[self.taps[0]]))
        teachers_ND = _unit(view.teacher_features[self.teacher_taps[0]].detach().to(mine_ND.dtype))
        log_p_NN = (mine_ND @ teachers_ND.T / self.temperature).log_softmax(1)
        return Loss(-log_p_NN.diagonal(), view.weight_N)


@objective(reads=("features", "weight_N"), item="place", teacher="none", alone=False, divergence=False)
def sides(*, tap: Tap, other: Tap, temperature: PositiveFloat = 0.07) -> Objective:
    """How little two taps of the student find each other: the mean of the cross-entropies of the `other` tap of a place
    among those of all places of the step, given its `tap`, and the other way round, by the inner product of states of
    length 1 over the temperature.

    Paper: Radford et al. 2021 (CLIP, arXiv 2103.00020), figure 3; PRORec 2025 (arXiv 2502.06269), collaborative and
    semantic vectors of an item.
    Differs: the temperature is not learnt.
    """
    return Sides(tap, other, temperature)


class Sides:
    """See `sides`."""

    def __init__(self, tap: str, other: str, temperature: float) -> None:
        self.taps, self.temperature = (tap, other), temperature

    def __call__(self, view: View) -> Loss:
        one_ND, other_ND = (_unit(view.features[tap]) for tap in self.taps)
        near_NN = one_ND @ other_ND.T / self.temperature
        found_N = near_NN.log_softmax(1).diagonal() + near_NN.log_softmax(0).diagonal()
        return Loss(-found_N / 2, view.weight_N)


@objective(
    reads=("features", "target_N", "own", "weight_N"), item="place", teacher="none", alone=False, divergence=False
)
def supcon(*, tap: Tap = "last", width: PositiveInt = 64, temperature: PositiveFloat = 0.1) -> Objective:
    """The mean over all other places of one's class of -log of how near each is among all others, by the inner product
    of projections of length 1 over the temperature, times the temperature over 0.07. The projection, of two layers, is
    trained with it. A place that is alone with its class has no part in it.

    Paper: Khosla et al. 2020 (supervised contrastive learning, arXiv 2004.11362), equation 2.
    Differs: with `crops.shifted` or another augmentation that makes copies, a place has those of its own example too.
    """
    return SupCon(tap, width, temperature)


BASE = 0.07


class SupCon:
    """See `supcon`; `modules` makes its projection."""

    def __init__(self, tap: str, width: int, temperature: float) -> None:
        self.taps, self.width, self.temperature = (tap,), width, temperature

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """From the tap to what is compared."""
        given = widths[self.taps[0]]
        return torch.nn.Sequential(torch.nn.Linear(given, given), torch.nn.ReLU(), torch.nn.Linear(given, self.width))

    def __call__(self, view: View) -> Loss:
        mine_ND = _unit(view.own(view.features[self.taps[0]]))
        return Loss(apart(mine_ND, view.target_N, self.temperature), view.weight_N)


def apart(mine_ND: torch.Tensor, target_N: torch.Tensor, temperature: float) -> torch.Tensor:
    """What `supcon` says of some states, as long as they are, [N]."""
    itself_NN = torch.eye(len(mine_ND), dtype=torch.bool, device=mine_ND.device)
    near_NN = (mine_ND @ mine_ND.T / temperature).masked_fill(itself_NN, -torch.inf)
    like_NN = (target_N[:, None] == target_N) & ~itself_NN
    log_p_NN = (near_NN - near_NN.logsumexp(1, keepdim=True)).masked_fill(~like_NN, 0)
    return -log_p_NN.sum(1) / like_NN.sum(1).clamp_min(1) * (temperature / BASE)


@objective(
    reads=("features", "teacher_features", "example_N", "own", "weight_N"),
    item="place",
    teacher="features",
    alone=False,
    divergence=False,
)
def copies(*, tap: Tap = "last", teacher_tap: TeacherTap = "last", temperature: PositiveFloat = 0.1) -> Objective:
    """As `contrast.nce`, between other copies of an example: a projection of the student's state of one is to be nearer
    to the teacher's of another than to those of all other examples. Of several others each counts alike.

    Paper: van den Oord et al. 2018 (InfoNCE, arXiv 1807.03748); He et al. 2020 (MoCo, arXiv 1911.05722), whose keys an
    averaged encoder gives, as a `shadow:` does.
    Differs: the others are those of the step, and there is no queue.
    """
    return Copies(tap, teacher_tap, temperature)


class Copies(Nce):
    """See `copies`."""

    def __call__(self, view: View) -> Loss:
        mine_ND = _unit(view.own(view.features[self.taps[0]]))
        teachers_ND = _unit(view.teacher_features[self.teacher_taps[0]].detach().to(mine_ND.dtype))
        other_NN, strange_NN = _copies(view.example_N)
        near_NN = mine_ND @ teachers_ND.T / self.temperature
        # Of each pair: the other copy, among it and all that are of other examples.
        strange_N1 = near_NN.masked_fill(~strange_NN, -torch.inf).logsumexp(1, keepdim=True)
        cost_NN = (torch.logaddexp(near_NN, strange_N1) - near_NN).masked_fill(~other_NN, 0)
        return Loss(cost_NN.sum(1) / other_NN.sum(1).clamp_min(1), view.weight_N)


@objective(
    reads=("features", "teacher_features", "example_N", "own", "weight_N"),
    item="place",
    teacher="features",
    alone=False,
    divergence=False,
)
def dino(
    *,
    tap: Tap = "last",
    teacher_tap: TeacherTap = "last",
    prototypes: PositiveInt = 64,
    temperature: PositiveFloat = 0.1,
    sharp: PositiveFloat = 0.04,
) -> Objective:
    """Cross-entropy of the teacher's distribution over prototypes at the other copies of an example, with the student's
    at one: both by the inner product of states of length 1 with prototypes that are trained with the student, the
    student's over the `temperature`, the teacher's, from which its mean over the step is taken, over `sharp`.

    Paper: Caron et al. 2021 (DINO, arXiv 2104.14294), centring and sharpening.
    Differs: the centre is the mean of the step, not a running one; teacher and student have one layer of prototypes,
    the student's, where theirs has an averaged head of its own.
    """
    return Dino(tap, teacher_tap, prototypes, temperature, sharp)


class Dino:
    """See `dino`; `modules` makes its prototypes."""

    def __init__(self, tap: str, teacher_tap: str, prototypes: int, temperature: float, sharp: float) -> None:
        self.taps, self.teacher_taps = (tap,), (teacher_tap,)
        self.prototypes, self.temperature, self.sharp = prototypes, temperature, sharp

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """A projection of the states of either, and prototypes beside it."""
        given, told = widths[self.taps[0]], teacher_widths[self.teacher_taps[0]]
        names = ("mine", "teachers", "prototypes")
        sizes = ((given, given), (told, given), (given, self.prototypes))
        return torch.nn.ModuleDict({n: torch.nn.Linear(*s, bias=False) for n, s in zip(names, sizes, strict=True)})

    def __call__(self, view: View) -> Loss:
        own, states = cast(Any, view.own), view.features[self.taps[0]]
        log_q_NK = (own["prototypes"](_unit(own["mine"](states))) / self.temperature).log_softmax(1)
        with torch.no_grad():
            teachers = view.teacher_features[self.teacher_taps[0]].to(states.dtype)
            told = own["prototypes"](_unit(own["teachers"](teachers)))
            centred = told - told.sum(0) / max(len(told), 1)
            p_NK = (centred / self.sharp).softmax(1)
        other_NN, _ = _copies(view.example_N)
        target_NK = other_NN.to(p_NK.dtype) @ p_NK / other_NN.sum(1, keepdim=True).clamp_min(1)
        return Loss(-(target_NK * log_q_NK).sum(1), view.weight_N)


def _copies(example_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which places are other copies of a place's example, and which are of other examples, [N, N] each."""
    same_NN = example_N[:, None] == example_N
    itself_NN = torch.eye(len(example_N), dtype=torch.bool, device=example_N.device)
    return same_NN & ~itself_NN, ~same_NN


def _unit(states_ND: torch.Tensor) -> torch.Tensor:
    """Brought to length 1."""
    return torch.nn.functional.normalize(states_ND, dim=1)


@objective(
    reads=("features", "teacher_features", "own", "weight_N"),
    item="place",
    teacher="features",
    alone=False,
    divergence=False,
)
def ibot(
    *,
    tap: Tap = "last",
    teacher_tap: TeacherTap = "last",
    temperature: PositiveFloat = 0.1,
    teacher_temperature: PositiveFloat = 0.04,
) -> Objective:
    """Cross-entropy of what the teacher makes of a place with a linear projection of the student's state of it, which
    is trained too: a softmax over the width of each, over its temperature. From the teacher's states, at length 1, is
    taken their mean over the places of the step. With `where: labelled` it is of patches that are hidden.

    Paper: Zhou et al. 2022 (iBOT, arXiv 2111.07832); the teacher is a shadow of the student.
    Differs: the teacher's state is not projected before, and its centre is of the step and no average over steps.
    """
    return Ibot(tap, teacher_tap, temperature, teacher_temperature)


class Ibot:
    """See `ibot`; `modules` makes its projection."""

    def __init__(self, tap: str, teacher_tap: str, temperature: float, teacher_temperature: float) -> None:
        self.taps, self.teacher_taps = (tap,), (teacher_tap,)
        self.temperature, self.teacher_temperature = temperature, teacher_temperature

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """The projection from the student's width to the teacher's."""
        return torch.nn.Linear(widths[self.taps[0]], teacher_widths[self.teacher_taps[0]])

    def __call__(self, view: View) -> Loss:
        log_q_ND = (_unit(view.own(view.features[self.taps[0]])) / self.temperature).log_softmax(1)
        theirs_ND = _unit(view.teacher_features[self.teacher_taps[0]].detach().to(log_q_ND.dtype))
        centre_D = theirs_ND.sum(0) / max(len(theirs_ND), 1)
        p_ND = ((theirs_ND - centre_D) / self.teacher_temperature).softmax(1)
        return Loss(-(p_ND * log_q_ND).sum(1), view.weight_N)


@objective(reads=("features", "weight_N"), item="place", teacher="none", alone=False, divergence=False)
def koleo(*, tap: Tap = "last") -> Objective:
    """-log of the distance of a place's state to the nearest other of the step, all of length 1: it spreads them out.

    Paper: Sablayrolles et al. 2019 (arXiv 1806.03198); Oquab et al. 2024 (DINOv2) beside iBOT.
    Differs: 0 for a place that is alone.
    """
    return Koleo(tap)


class Koleo:
    """See `koleo`."""

    def __init__(self, tap: str) -> None:
        self.taps = (tap,)

    def __call__(self, view: View) -> Loss:
        mine_ND = _unit(view.features[self.taps[0]])
        if len(mine_ND) < 2:
            return Loss(mine_ND.sum(1) * 0, view.weight_N)
        near_NN = (mine_ND @ mine_ND.T).detach().fill_diagonal_(-2)
        apart_N = (mine_ND - mine_ND[near_NN.argmax(1)]).norm(dim=1)
        return Loss(-apart_N.clamp_min(1e-6).log(), view.weight_N)
