"""What a further head learns: targets over its own outcomes, which a table of signals holds as a tap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.core.methods import lazy
from pipeline.kinds.objective import Loss, Objective, TeacherTap, View, objective

if TYPE_CHECKING:
    import torch

    from pipeline.model import distributions
else:
    torch = lazy("torch")
    distributions = lazy("pipeline.model.distributions")

# A logit beyond which a sigmoid is what it is.
MOST = 1e4


class Reading:
    """An objective that reads one tap of a teacher's."""

    def __init__(self, teacher_tap: str) -> None:
        self.taps: tuple[str, ...] = ()
        self.teacher_taps = (teacher_tap,)

    def targets(self, view: View) -> torch.Tensor:
        """What the tap holds, [N, V]."""
        return view.teacher_features[self.teacher_taps[0]].detach().to(view.student_NV.dtype)


@objective(reads=("student_NV", "teacher_features", "weight_N"), item="place", teacher="features", divergence=False)
def distribution(*, teacher_tap: TeacherTap) -> Objective:
    """-sum p log q over the outcomes of a head, where the tap holds p: the subclasses of `subclasses.lelp`.

    Paper: Dalal et al. 2024 (LELP, arXiv 2409.20449); Müller et al. 2020 (arXiv 2002.03936).
    Differs: no temperature of its own; `subclasses.lelp` has one for the kinds of a class.
    """
    return Distribution(teacher_tap)


class Distribution(Reading):
    """See `distribution`."""

    def __call__(self, view: View) -> Loss:
        log_q_NV = distributions.log_probs(view.student_NV)
        return Loss(-(self.targets(view) * log_q_NV).sum(1), view.weight_N)


@objective(
    reads=("student_NV", "teacher_features", "weight_N"),
    item="place",
    teacher="features",
    divergence=False,
    shift=False,
)
def binary(*, teacher_tap: TeacherTap) -> Objective:
    """Cross-entropy of every outcome of a head by itself, yes or no, where the tap holds the probability of yes; the
    mean over the outcomes.

    Paper: Lee et al. 2025 (multi-aspect knowledge distillation, arXiv 2501.13341), the loss on aspects.
    Differs: nothing.
    """
    return Binary(teacher_tap)


class Binary(Reading):
    """See `binary`."""

    def __call__(self, view: View) -> Loss:
        logits_NV, p_NV = view.student_NV.clamp(-MOST, MOST), self.targets(view)
        each_NV = torch.nn.functional.binary_cross_entropy_with_logits(logits_NV, p_NV, reduction="none")
        return Loss(each_NV.mean(1), view.weight_N)
