"""Objectives over the order that the teacher gives to outcomes, and over how far apart it puts them.

All but the student-led ones look at the teacher's likeliest outcomes alone, so a stored top-k will do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.core.methods import lazy
from pipeline.errors import Refused
from pipeline.kinds.objective import DenseTeacher, Loss, Objective, TopKTeacher, View, objective

if TYPE_CHECKING:
    import torch

    from pipeline.model import distributions
else:
    torch = lazy("torch")
    distributions = lazy("pipeline.model.distributions")

READS = ("student_NV", "teacher", "weight_N")
Several = Annotated[int, Field(ge=2)]
# Two have one difference, which is no distribution.
Three = Annotated[int, Field(ge=3)]


@objective(reads=("student_NV", "target_N", "teacher", "weight_N"), item="place", teacher="any", divergence=False)
def pld(*, k: PositiveInt | None = 64, temperature: PositiveFloat = 1.0) -> Objective:
    """The target first, then the others as the teacher ranks them: each choice weighed by the teacher's probability.

    The sum over ranks of p (log sum exp of the student's logits from that rank on, less its logit). The k likeliest are
    ranked, and all others stand after them as one; `k: null` ranks all.
    Paper: Bassam et al. 2025, PLD (arXiv 2506.12542).
    Differs: k. A stored teacher's k are those that it has, at the temperature that they were taken at; a target that is
    not among them has the weight 0.
    """

    def loss(view: View) -> Loss:
        ids_NK, log_p = distributions.likeliest(view, view.student_NV.shape[1] if k is None else k, temperature)
        target_N1 = view.target_N[:, None]
        # A target that is not among them takes the place of the last.
        known = ids_NK == target_N1
        missing_N1 = ~known.any(1, keepdim=True)
        known[:, -1:] |= missing_N1
        ids_NK = torch.where(known, target_N1, ids_NK)
        log_p = torch.where(known & missing_N1, _of_target(view, temperature), log_p)
        order_NK = known.int().argsort(dim=1, descending=True, stable=True)
        ids_NK, log_p = ids_NK.gather(1, order_NK), log_p.gather(1, order_NK)
        apart = distributions.apart(view.student_NV, ids_NK).clamp_min(distributions.LOWEST)
        log_q = apart.log_softmax(1).clamp_min(distributions.IMPOSSIBLE)
        after = log_q.flip(1).logcumsumexp(1).flip(1)
        return Loss((log_p.exp() * (after - log_q)[:, :-1]).sum(1), view.weight_N)

    return loss


def _of_target(view: View, temperature: float) -> torch.Tensor:
    """The teacher's log-probability of the target, [C, 1]; that of nothing where it is not stored."""
    if isinstance(view.teacher, DenseTeacher):
        logits_NV = view.teacher.logits_NV.detach().to(view.student_NV.dtype)
        return distributions.log_probs(logits_NV, temperature).gather(1, view.target_N[:, None])
    ids_NK, log_p = distributions.likeliest(view, view.student_NV.shape[1], temperature)
    return torch.where(ids_NK == view.target_N[:, None], log_p, distributions.IMPOSSIBLE).amax(1, keepdim=True)


@objective(reads=READS, item="place", teacher="any", divergence=False)
def teacher_led(*, k: Three = 8, tau: PositiveFloat = 3.0) -> Objective:
    """KL between how the teacher's k likeliest outcomes differ, pair by pair, for the teacher and for the student.

    The k (k - 1) / 2 differences of logits over tau are made a distribution. It is half of `ranking.bild`.
    Paper: Li et al. 2024, BiLD (arXiv 2406.13555).
    Differs: nothing.
    """

    def loss(view: View) -> Loss:
        # Differences of log-probabilities at a temperature are those of logits over it.
        stored = view.teacher.temperature if isinstance(view.teacher, TopKTeacher) else 1.0
        ids_NK, log_p = distributions.likeliest(view, k, stored)
        chosen = view.student_NV.gather(1, ids_NK).clamp_min(distributions.LOWEST)
        return Loss(_differences(log_p * stored, chosen, tau), view.weight_N)

    return loss


@objective(reads=READS, item="place", teacher="all", divergence=False)
def bild(*, k: Three = 8, tau: PositiveFloat = 3.0, led: Literal["both", "student"] = "both") -> Objective:
    """KL between the differences of logits among the teacher's k likeliest outcomes, and among the student's.

    Paper: Li et al. 2024, BiLD (arXiv 2406.13555).
    Differs: nothing; `led: student` is its second part, `ranking.teacher_led` its first.
    """

    def loss(view: View) -> Loss:
        teacher_NV = _live(view)
        value_N = teacher_NV.new_zeros(len(teacher_NV))
        for leader in (view.student_NV,) if led == "student" else (teacher_NV, view.student_NV):
            ids_NK = leader.detach().topk(min(k, leader.shape[1]), 1).indices
            value_N = value_N + _differences(*_of(view, teacher_NV, ids_NK), tau)
        return Loss(value_N, view.weight_N)

    return loss


@objective(reads=READS, item="place", teacher="all", divergence=False)
def dbild(*, most: Three = 32, tau: PositiveFloat = 3.0) -> Objective:
    """As `ranking.bild`, by reverse KL, with as many outcomes at a place as stand before the knee of its logits.

    The knee is where the curve of the `most` highest logits, from 1 to 0 over their ranks, is furthest below the
    straight line; a place has at least two.
    Paper: Switch-KD (2026), its dynamic BiLD.
    Differs: the official text and figure were read, no code of this loss is released. `most` bounds the pairs, and the
    curve is drawn over as many.
    """

    def loss(view: View) -> Loss:
        teacher_NV = _live(view)
        value_N = teacher_NV.new_zeros(len(teacher_NV))
        for leader in (teacher_NV, view.student_NV):
            top = leader.detach().topk(min(most, leader.shape[1]), 1)
            chosen_NK = torch.arange(top.values.shape[1], device=leader.device) < knee(top.values)[:, None]
            pair = _of(view, teacher_NV, top.indices)
            value_N = value_N + _differences(*pair, tau, chosen_NK, reverse=True)
        return Loss(value_N, view.weight_N)

    return loss


@objective(reads=READS, item="place", teacher="any", divergence=False)
def hinge(*, k: Several = 5, margin: PositiveFloat | None = None) -> Objective:
    """How much the student's probabilities of two of the teacher's k likeliest outcomes fall short of a margin.

    The margin is the difference of the teacher's own probabilities unless a number is given.
    Paper: none; as in DistillKit, after Herbrich et al. 1999 (ordinal regression by pairs).
    Differs: a place's value is the mean over its pairs.
    """

    def loss(view: View) -> Loss:
        p, log_q, first, second = _pairs(view, k)
        q, wanted = log_q.exp(), p[:, first] - p[:, second] if margin is None else margin
        return Loss((wanted - (q[:, first] - q[:, second])).clamp_min(0).mean(1), view.weight_N)

    return loss


@objective(reads=READS, item="place", teacher="any", divergence=False)
def logistic(*, k: Several = 5) -> Objective:
    """-log sigmoid of the student's log-ratio of two of the teacher's k likeliest outcomes, the better over the worse.

    Paper: Burges et al. 2005 (RankNet).
    Differs: on the teacher's order, as in DistillKit; a place's value is the mean over its pairs.
    """

    def loss(view: View) -> Loss:
        _, log_q, first, second = _pairs(view, k)
        value = -torch.nn.functional.logsigmoid(log_q[:, first] - log_q[:, second])
        return Loss(value.mean(1), view.weight_N)

    return loss


def knee(sorted_CK: torch.Tensor) -> torch.Tensor:
    """How many of each row's falling values stand before its knee, [C]: at least two."""
    low_C1, high_C1 = sorted_CK[:, -1:], sorted_CK[:, :1]
    span_C1 = (high_C1 - low_C1).nan_to_num(0.0, 0.0).clamp_min(1e-12)
    height = ((sorted_CK - low_C1) / span_C1).nan_to_num(0.0)
    line = torch.linspace(1, 0, sorted_CK.shape[1], dtype=height.dtype, device=height.device)
    return (line - height).argmax(1).clamp_min(2)


def _pairs(view: View, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The teacher's probabilities and the student's log-probabilities of k outcomes, and all pairs of them."""
    ids_NK, log_p = distributions.likeliest(view, k)
    apart = distributions.apart(view.student_NV, ids_NK).clamp_min(distributions.LOWEST)
    log_q = apart.log_softmax(1)[:, :-1].clamp_min(distributions.IMPOSSIBLE)
    first, second = torch.triu_indices(ids_NK.shape[1], ids_NK.shape[1], 1, device=ids_NK.device)
    return log_p.exp(), log_q, first, second


def _live(view: View) -> torch.Tensor:
    if not isinstance(view.teacher, DenseTeacher):
        raise Refused(distributions.NO_TEACHER)
    return view.teacher.logits_NV.detach().to(view.student_NV.dtype)


def _of(view: View, teacher_NV: torch.Tensor, ids_NK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both models' logits of some outcomes."""
    chosen = (logits.gather(1, ids_NK).clamp_min(distributions.LOWEST) for logits in (teacher_NV, view.student_NV))
    teacher, student = chosen
    return teacher, student


def _differences(
    teacher_CK: torch.Tensor,
    student_CK: torch.Tensor,
    tau: float,
    chosen_CK: torch.Tensor | None = None,
    reverse: bool = False,
) -> torch.Tensor:
    """KL between the distributions that softmax makes of all pairwise differences, [C]."""
    first, second = torch.triu_indices(teacher_CK.shape[1], teacher_CK.shape[1], 1, device=teacher_CK.device)
    logs = []
    for logits_CK in (teacher_CK, student_CK):
        apart = (logits_CK[:, first] - logits_CK[:, second]) / tau
        if chosen_CK is not None:
            apart = apart.masked_fill(~(chosen_CK[:, first] & chosen_CK[:, second]), -torch.inf)
        logs.append(distributions.log_probs(apart))
    return distributions.kl(*(reversed(logs) if reverse else logs))
