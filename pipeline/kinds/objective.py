"""What an objective is given and gives: the places of a batch, and nothing else.

A place is where a loss stands: a token to be learnt, a text to be named. A view is those places: no objective sees a
mask, a padding token or a pair of shifted tensors, so none can get them wrong. Shift and mask are a network's work.

Tensors carry their shape in their name: N places, B examples, V outcomes at a place, K stored outcomes of a teacher, D
the width of a tap.

    @objective(reads=("student_NV", "teacher", "weight_N"), item="place", teacher="any", divergence=True)
    def forward(*, temperature: PositiveFloat = 1.0) -> Objective: ...

Traits: `reads` are the fields of the view that it looks at. `item` is what one value stands for, and the sum is divided
by the number of them: `place`, `example`, `set` (all examples of one prompt), `link` or `neighbour` (every link, and
every place as its own); `per` where it is divided by the number of others, as a mean over examples of their means over
places is. `teacher` is what it is compared with: `any` distribution, `all` outcomes (no top-k), the `reference`
log-probability of targets, `features`, the distribution of one of `other` tokens, a `live` model that is looked at
again, or `none`. `across` is how places of other tokens are aligned, by `bytes` or by `position`; then a place is a
group of them. `shift: False`: a number added to all logits of a place counts. `alone: False`: a value depends on other
items, so the whole of a step is looked at together, or the whole of a set; `whole: True`: a set's value depends on
other sets too. `both: True`: it tells places of known outcome from others, so it stands on all of them unless a term
says otherwise. `surrogate: True`: the gradient is not the value's derivative, on purpose.

A *play* calls networks on what it makes, rather than looking at what they said: it reads `networks`, and all chance
comes in as `draws`, so that it is a function of its view as any other.

A value that depends on other places, as one of the tenth of places where the student is least sure, needs no logits of
all of them: the objective has a first look (`Objective`). Of the fields of logits, `first` are those that only this
look reads, and `second` those that only what follows does, so that neither makes logits in vain. `chooses: True`: a
place for which 0 was settled is worth 0, and is not looked at again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    import torch
else:
    # `plan` imports the objectives, and with them this module, to read their signatures; it must not load torch.
    from pipeline.core.methods import lazy

    torch = lazy("torch")


from pipeline.core.methods import marker

UNFILLED: Any = None
# Fields of a view that are as wide as the vocabulary; no objective of places is shown all places' at once.
LOGITS = frozenset({"student_NV", "teacher", "reference", "other"})
# Fields by which a model is looked at again; a term that reads one sees all places at once.
LOOKS = frozenset({"look", "teacher_look"})


# Arguments that name what a model computes on the way: `last`, the states that its head is given, or a module's name.
Tap = Annotated[str, "tap"]
TeacherTap = Annotated[str, "teacher_tap"]


# An argument that names a model of the training beside the one that is judged, for a play to call.
Role = Annotated[str, "role"]
# What a play calls the model that its term judges, and the one that it is compared with.
JUDGED, AGAINST = "judged", "against"


# Beside the widths of taps, how many outcomes the head has that a term judges.
OUTCOMES = "outcomes"


@dataclass(frozen=True)
class DenseTeacher:
    """The teacher's raw logits at every place, over the student's outcomes."""

    logits_NV: torch.Tensor

    def at(self, rows: torch.Tensor | slice) -> DenseTeacher:
        """Some of the places."""
        return DenseTeacher(self.logits_NV[rows])


@dataclass(frozen=True)
class TopKTeacher:
    """The teacher's distribution as K + 1 outcomes: its K likeliest, and all others together.

    `logprobs_NK`, the mass `tail_N` and the log-probability `target_N` of what stands there, which need not be one of
    the K, were taken at `temperature`, over all outcomes. `tails` are the masses [N] of the others at further
    temperatures, which is all that differs there: the K keep their ratios.
    """

    ids_NK: torch.Tensor
    logprobs_NK: torch.Tensor
    tail_N: torch.Tensor
    temperature: float = 1.0
    tails: Mapping[float, torch.Tensor] = field(default_factory=dict)
    target_N: torch.Tensor = UNFILLED

    def at(self, rows: torch.Tensor | slice) -> TopKTeacher:
        """Some of the places."""
        tails = {temperature: tail_N[rows] for temperature, tail_N in self.tails.items()}
        target_N = None if self.target_N is None else self.target_N[rows]
        ids_NK, logprobs_NK, tail_N = self.ids_NK[rows], self.logprobs_NK[rows], self.tail_N[rows]
        return TopKTeacher(ids_NK, logprobs_NK, tail_N, self.temperature, tails, target_N)

    def at_temperature(self, temperature: float) -> TopKTeacher | None:
        """The same distribution at another temperature; None where the mass of the others is not known there."""
        # Close, not equal: 0.7 comes back from a float32 as 0.69999999.
        if math.isclose(self.temperature, temperature, rel_tol=1e-6):
            return self
        for known, tail_N in self.tails.items():
            if math.isclose(known, temperature, rel_tol=1e-6):
                colder = self.temperature / temperature
                scaled_NK = self.logprobs_NK * colder
                top_N = torch.log1p(-tail_N.clamp_max(1 - 1e-7)) - scaled_NK.logsumexp(1)
                target_N = None if self.target_N is None else self.target_N * colder + top_N
                return TopKTeacher(self.ids_NK, scaled_NK + top_N[:, None], tail_N, temperature, target_N=target_N)
        return None


Teacher = DenseTeacher | TopKTeacher


@dataclass(frozen=True)
class OtherTeacher:
    """A teacher of other tokens, at the ends of groups of places in which both spell the same; N groups.

    logits_NU: its raw logits where its last token of the group stands; before_N, own_before_N: the log-probability of
    what stands before that in the group, as the teacher gives it and as the judged model does, which has a gradient;
    outcome_U: the judged model's outcome that spells what each of the teacher's does, -1 where there is none.
    """

    logits_NU: torch.Tensor
    before_N: torch.Tensor
    own_before_N: torch.Tensor
    outcome_U: torch.Tensor

    def at(self, rows: torch.Tensor | slice) -> OtherTeacher:
        """Some of the groups."""
        return OtherTeacher(self.logits_NU[rows], self.before_N[rows], self.own_before_N[rows], self.outcome_U)


class Shown(NamedTuple):
    """What a model shows when it is looked at again: taps [N, D], a call for the log-probability [N] that it gives to
    what stands at each place, and one for its raw logits [N, V]."""

    features: Mapping[str, torch.Tensor]
    said: Callable[[], torch.Tensor]
    logits: Callable[[], torch.Tensor]


class Look(Protocol):
    """A model's look at the same rows with other states [N, D] at the places of some of its taps, which are modules.

    The rest of it goes on from them, and hands their gradient on, though its own weights are frozen.
    """

    def __call__(self, put: Mapping[str, torch.Tensor], taps: Sequence[str] = ()) -> Shown: ...


class Step(NamedTuple):
    """Where training stands: steps made before this one and all there will be; likewise epochs."""

    number: int
    of: int
    epoch: int
    epochs: int


@dataclass(frozen=True)
class View:
    """The places of a batch, in its order: by example, then by position. The vocabulary of all objectives.

    Only what a method's `reads` names is sure to be filled.
    """

    # Raw logits of the judged model, in float32 or wider.
    student_NV: torch.Tensor = UNFILLED
    # The outcome that stands there, -1 where it is unknown; the log-probability that the judged model gives to it.
    target_N: torch.Tensor = UNFILLED
    logprob_N: torch.Tensor = UNFILLED
    # What it is compared with: a distribution, or the log-probability of the target alone.
    teacher: Teacher | None = None
    # A second distribution, that of the model which the term's `reference` names.
    reference: DenseTeacher | None = None
    reference_N: torch.Tensor = UNFILLED
    # In its place a teacher of other tokens; then a place of the view is a group, and `student_NV` is of its end.
    other: OtherTeacher = UNFILLED
    # By tap, [N, D].
    features: Mapping[str, torch.Tensor] = field(default_factory=dict)
    teacher_features: Mapping[str, torch.Tensor] = field(default_factory=dict)
    # The judged model, and the one it is compared with, looked at again.
    look: Look = UNFILLED
    teacher_look: Look = UNFILLED
    # What the objective settled for each place after its first look, [N, S].
    settled_NS: torch.Tensor = UNFILLED
    # The example that a place stands in, and its weight; how many places an example has, over all of the batch, the set
    # that it belongs to, and its reward.
    example_N: torch.Tensor = UNFILLED
    weight_N: torch.Tensor = UNFILLED
    length_B: torch.Tensor = UNFILLED
    set_B: torch.Tensor = UNFILLED
    reward_B: torch.Tensor = UNFILLED
    # Of a network whose places are linked, places [2, E]: row 0 learns from row 1.
    links_2E: torch.Tensor = UNFILLED
    # What is to be made, where it is no outcome, [N, ...].
    truth: torch.Tensor = UNFILLED
    # Of a play: models by role, each called as its network says (`Network.calls`), and numbers of each place by name.
    networks: Mapping[str, Callable[..., torch.Tensor]] = UNFILLED
    draws: Mapping[str, torch.Tensor] = UNFILLED
    # The method's own trained module.
    own: torch.nn.Module = UNFILLED
    step: Step = UNFILLED

    def restrict(self, reads: Iterable[str]) -> View:
        """The same view, on which reading any other field raises: a method's trait `reads` is the truth about it."""
        return cast(View, _Restricted(self, frozenset(reads)))


class _Restricted:
    def __init__(self, view: View, reads: frozenset[str]) -> None:
        self._view, self._reads = view, reads

    def __getattr__(self, name: str) -> object:
        if name not in self._reads:
            raise AttributeError(
                f"the objective reads {name}, which its `reads` does not declare: {sorted(self._reads)}"
            )
        return getattr(self._view, name)


@dataclass(frozen=True)
class Loss:
    """One value and one weight per item, and metrics of the same length, never a scalar."""

    value_N: torch.Tensor
    weight_N: torch.Tensor
    metrics: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Reduced:
    """A step's loss over all micro-batches and ranks: what is logged, and what a method with state is updated by."""

    value: float
    items: int
    metrics: Mapping[str, float]


class Objective(Protocol):
    """A view to a loss per item. Calling it moves no state.

    A method with memory is an object that has three methods more: `update(step, reduced)`, which the trainer calls once
    after every step of the optimizer; `state()`, a mapping of tensors that goes into every checkpoint; and
    `restore(state)`. One with a module of its own has `modules(widths, teacher_widths)`, by tap and, as `outcomes`, the
    student's vocabulary, which makes it: it is trained with the student, kept in checkpoints, and is no part of the
    student that is saved. `taps` and `teacher_taps` are the taps that it reads.

    One with a first look has `measure(view) -> [N, M]`, a few numbers of each place, which is called on some places
    after others, without gradient. `settle(measured_NM, view) -> [N, S]` then makes of all places' numbers what a place
    has to know of the others; the view is of all places and without `LOGITS`. Without `settle`, what was measured is
    settled. When the objective is called, some places after others again, `settled_NS` is what was settled for them.
    """

    def __call__(self, view: View) -> Loss: ...


def first_look(objective: Objective, view: View, reads: Iterable[str]) -> View:
    """The view of all places, with what the objective settles for them."""
    if not hasattr(objective, "measure"):
        return view
    with torch.no_grad():
        return replace(view, settled_NS=settled(objective, objective.measure(view.restrict(reads)), view, reads))


def settled(objective: Any, measured_NM: torch.Tensor, view: View, reads: Iterable[str]) -> torch.Tensor:
    """What the objective settles of what it measured, without gradient."""
    if not hasattr(objective, "settle"):
        return measured_NM
    with torch.no_grad():
        made: torch.Tensor = objective.settle(measured_NM, view.restrict(set(reads) - LOGITS))
    return made


objective = marker("objective")
