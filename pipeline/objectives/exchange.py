"""Objectives in which one model's state becomes one of the other's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from pipeline.core.methods import lazy
from pipeline.kinds.objective import Loss, Objective, Tap, TeacherTap, View, objective
from pipeline.objectives import ranking

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@objective(
    reads=("features", "teacher_features", "look", "teacher_look", "target_N", "own", "weight_N"),
    item="place",
    teacher="live",
    divergence=False,
)
def messages(
    *,
    tap: Tap,
    teacher_tap: TeacherTap,
    answer_tap: TeacherTap = "last",
    width: PositiveInt = 64,
    agree: NonNegativeFloat = 1.0,
    keep: NonNegativeFloat = 1.0,
    sends: Literal["states", "zeros", "nothing"] = "states",
) -> Objective:
    """The student's state at `tap` is encoded as a message of `width` numbers and decoded into the teacher's state at
    `teacher_tap`; what the frozen teacher makes of it at `answer_tap` is a message back, which is decoded into the
    student's state. The loss is -log q of what stands there, as the student says it from there on, where it is known;
    `agree` times the squared distance of the two models' messages on what they compute by themselves; and `keep` times
    the squared distances of their states from what is decoded of their own messages, each a mean over its width. The
    four maps have two layers each, and are trained with the student, which then answers alone.

    Controls of as many weights: with `sends: zeros` the message to the teacher is zero, with `sends: nothing` there is
    none, and the teacher tells what it computed by itself. Both models are looked at twice.
    Paper: Liang et al. 2023 (Talking Models, arXiv 2310.03188): interaction, message and state consistency.
    Differs: one round; a summary was read, and no code, so maps and weights are ours. The teacher's encoder reads the
    tap of its answers, and what is decoded of its message is held against the tap that messages come in at.
    """
    return Messages((tap,), (teacher_tap, answer_tap), width, agree, keep, sends)


class Messages:
    """See `messages`; `modules` makes the four maps."""

    def __init__(
        self,
        taps: tuple[str],
        teacher_taps: tuple[str, str],
        width: int,
        agree: float,
        keep: float,
        sends: Literal["states", "zeros", "nothing"],
    ) -> None:
        self.taps, self.teacher_taps, self.width, self.sends = taps, teacher_taps, width, sends
        self.agree, self.keep = agree, keep

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """From states to messages and back, of the student and of the teacher."""
        [mine], (asked, answers) = self.taps, self.teacher_taps
        sizes = {
            "says": (widths[mine], self.width),
            "hears": (self.width, widths[mine]),
            "teacher_says": (teacher_widths[answers], self.width),
            "teacher_hears": (self.width, teacher_widths[asked]),
        }
        return torch.nn.ModuleDict({name: _map(*size, self.width) for name, size in sizes.items()})

    def __call__(self, view: View) -> Loss:
        [mine], (asked, answers) = self.taps, self.teacher_taps
        says, hears, teacher_says, teacher_hears = (
            view.own.get_submodule(name) for name in ("says", "hears", "teacher_says", "teacher_hears")
        )
        mine_ND = view.features[mine]
        asked_NE, answers_NF = (view.teacher_features[tap].detach().to(mine_ND.dtype) for tap in (asked, answers))
        message_NM, told_NM = says(mine_ND), teacher_says(answers_NF)
        heard_NE = asked_NE
        if self.sends != "nothing":
            heard_NE = teacher_hears(message_NM if self.sends == "states" else torch.zeros_like(message_NM))
        answered_NF = view.teacher_look({asked: heard_NE}, (answers,)).features[answers].to(mine_ND.dtype)
        said_N = view.look({mine: hears(teacher_says(answered_NF))}).said()
        apart_N = _apart(message_NM, told_NM)
        kept_N = _apart(hears(message_NM), mine_ND) + _apart(teacher_hears(told_NM), asked_NE)
        value_N = self.agree * apart_N + self.keep * kept_N - said_N.masked_fill(view.target_N < 0, 0)
        return Loss(value_N, view.weight_N)


@objective(
    reads=("features", "teacher", "teacher_look", "own", "weight_N"),
    item="place",
    teacher="live",
    divergence=False,
)
def switch(
    *,
    tap: Tap,
    teacher_tap: TeacherTap,
    most: Annotated[int, Field(ge=3)] = 32,
    tau: PositiveFloat = 3.0,
) -> Objective:
    """`ranking.dbild` between what the frozen teacher says of a picture that it sees itself, and what it says where the
    student's state at `tap` stands, by a linear map, in place of its own at `teacher_tap`; of a LLaVA both are
    `model.multi_modal_projector`, the patches as words. The map is trained with the student, whose eyes learn to show
    what the teacher can read.

    The teacher is looked at twice, and hands on the gradient of what is put. The student's own words learn nothing of
    it, so it stands beside other terms.
    Paper: Switch-KD (2026), its visual switch: the student's picture through the teacher's language model.
    Differs: the official text was read, and no code of the training is released; a trained map takes the place of the
    teacher's projection, so that the two need not be as wide. A tap may be of any module of models that show `look`.
    """
    return Switch((tap,), (teacher_tap,), ranking.dbild(most=most, tau=tau))


class Switch:
    """See `switch`; `modules` makes the map."""

    def __init__(self, taps: tuple[str], teacher_taps: tuple[str], apart: Objective) -> None:
        self.taps, self.teacher_taps, self.apart = taps, teacher_taps, apart

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """From the student's states to the teacher's."""
        return torch.nn.Linear(widths[self.taps[0]], teacher_widths[self.teacher_taps[0]])

    def __call__(self, view: View) -> Loss:
        shown = view.own(view.features[self.taps[0]])
        switched_NV = view.teacher_look({self.teacher_taps[0]: shown}).logits()
        return self.apart(View(student_NV=switched_NV, teacher=view.teacher, weight_N=view.weight_N))


def _map(given: int, made: int, hidden: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(given, hidden), torch.nn.GELU(), torch.nn.Linear(hidden, made))


def _apart(one_ND: torch.Tensor, two_ND: torch.Tensor) -> torch.Tensor:
    return (one_ND - two_ND).square().mean(1)
