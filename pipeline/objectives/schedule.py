"""Objectives that change while a student is trained: what it is compared with moves from itself to its teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.core.methods import lazy
from pipeline.kinds.objective import OUTCOMES, DenseTeacher, Loss, Objective, Reduced, Step, Tap, View, objective

if TYPE_CHECKING:
    import torch

    from pipeline.model import distributions
else:
    torch = lazy("torch")
    distributions = lazy("pipeline.model.distributions")

Share = Annotated[float, Field(ge=0, le=1)]


@objective(reads=("student_NV", "teacher", "weight_N"), item="place", teacher="any", divergence=False, surrogate=True)
def taid(
    *, start: Share = 0.4, end: Share = 1.0, rate: Annotated[float, Field(ge=0)] = 5e-4, momentum: Share = 0.99
) -> Objective:
    """The cross-entropy to a distribution between student and teacher, softmax((1 - t) student + t teacher) of logits.

    t rises from `start` to `end`, at least linearly in the steps, faster while the loss falls (`rate`).
    Paper: Shing et al. 2025, TAID (arXiv 2501.16937), eq. 3 and algorithm 1.
    Differs: t moves once per step of the optimizer, by the loss of the whole step over all ranks; the released code
    moves it in every call, validation included. A stored teacher's tokens beyond its K are one outcome, for both.
    """
    return Taid(start, end, rate, momentum)


class Taid:
    """The schedule's state: t, the loss of the last step, and the momentum of its relative fall."""

    def __init__(self, start: float, end: float, rate: float, momentum: float) -> None:
        self.start, self.end, self.rate, self.beta = start, end, rate, momentum
        self.t, self.last, self.fall = start, math.nan, 0.0

    def __call__(self, view: View) -> Loss:
        log_p, log_q = distributions.outcomes(view)
        between = distributions.log_probs((1 - self.t) * log_q.detach() + self.t * log_p)
        return Loss(distributions.cross(between, log_q), view.weight_N)

    def update(self, step: Step, reduced: Reduced) -> None:
        """Take in the loss of a step; the first one is only remembered."""
        if not math.isnan(self.last):
            relative = (self.last - reduced.value) / (self.last + 1e-15)
            self.fall = self.beta * self.fall + (1 - self.beta) * relative
            faster = self.rate * (1 - self.t) / (1 + math.exp(-self.fall))
            linear = self.start + (self.end - self.start) * step.number / step.of
            self.t = min(self.end, max(linear, self.t + faster))
        self.last = reduced.value

    def state(self) -> dict[str, torch.Tensor]:
        """What `restore` needs."""
        return {"state": torch.tensor([self.t, self.last, self.fall], dtype=torch.float64)}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from a saved state."""
        self.t, self.last, self.fall = state["state"].tolist()


@objective(
    reads=("student_NV", "target_N", "teacher", "weight_N", "step"), item="place", teacher="all", divergence=False
)
def ps_kd(*, alpha: Share = 0.8) -> Objective:
    """Cross-entropy to a mixture of the target and what the student itself said after the last epoch.

    The share of the latter is alpha (e + 1) / E in epoch e of E; in the first epoch the target stands alone. The entry
    needs `shadow: {every: epoch, decay: 0}`.
    Paper: Kim et al. 2021, PS-KD (arXiv 2006.12000), eq. 5 and 8.
    Differs: the student of the last epoch is kept and asked, where the paper keeps its answers: the same numbers where
    an example is seen in one form.
    """

    def loss(view: View) -> Loss:
        epoch, epochs = view.step.epoch, view.step.epochs
        hard_N = -distributions.log_prob_of(view.student_NV, view.target_N)
        if epoch == 0:
            return Loss(hard_N, view.weight_N)
        share = alpha * (epoch + 1) / epochs
        log_p, log_q = distributions.outcomes(view)
        return Loss((1 - share) * hard_N + share * distributions.cross(log_p, log_q), view.weight_N)

    return loss


@objective(
    reads=("student_NV", "target_N", "teacher", "reference", "settled_NS", "weight_N"),
    item="place",
    alone=False,
    first=("reference",),
    second=("student_NV",),
    teacher="all",
    divergence=False,
)
def guidance(*, share: Share | None = None) -> Objective:
    """Squared distance to the truth and to the teacher, weighed by how much truth leaves the two least wrong.

    The share a of the truth is <f - g, y - g> / |f - g|^2 over all places of a step, between 0 and 1, where f is the
    reference, a student that learnt the truth alone, g the teacher and y the truth: the mixture a f + (1 - a) g that is
    nearest to y. Rows that neither of the two learnt make it honest; a number for `share` stands for it.
    Paper: Borup and Andersen 2021, Even your Teacher Needs Guidance (arXiv 2102.13088), whose closed form this is for
    fits that are linear in their targets.
    Differs: applied to networks' probabilities, step by step, clipped to 0 and 1. The teacher's head is applied twice
    and the reference's once: 1.5 times the cost of forward KL.
    """
    return Guidance(share)


class Guidance:
    """The objective; what it measures are the two sums of a place."""

    def __init__(self, share: float | None) -> None:
        self.share = share

    def measure(self, view: View) -> torch.Tensor:
        """<f - g, y - g> and |f - g|^2."""
        assert view.reference is not None and isinstance(view.teacher, DenseTeacher)
        f, g = (model.logits_NV.softmax(1) for model in (view.reference, view.teacher))
        at = view.target_N[:, None]
        apart = f - g
        to_truth_N = apart.gather(1, at)[:, 0] - (apart * g).sum(1)
        return torch.stack([to_truth_N, apart.square().sum(1)], 1)

    def settle(self, measured_NM: torch.Tensor, view: View) -> torch.Tensor:
        """The share of the truth, at every place."""
        along, size = measured_NM.sum(0)
        share = (along / size.clamp_min(1e-12)).clamp(0, 1) if self.share is None else along.new_tensor(self.share)
        return share.expand(len(measured_NM), 1)

    def __call__(self, view: View) -> Loss:
        assert isinstance(view.teacher, DenseTeacher)
        q = view.student_NV.softmax(1)
        at = view.target_N[:, None]
        p = view.teacher.logits_NV.detach().to(q.dtype).softmax(1)
        apart, share_N = q - p, view.settled_NS[:, 0]
        truth_N = torch.linalg.vecdot(q, q) - 2 * q.gather(1, at)[:, 0] + 1
        teacher_N = torch.linalg.vecdot(apart, apart)
        return Loss(share_N * truth_N + (1 - share_N) * teacher_N, view.weight_N, {"truth": share_N})


@objective(
    reads=("student_NV", "target_N", "features", "own", "settled_NS", "weight_N"),
    item="place",
    alone=False,
    teacher="none",
    divergence=False,
    surrogate=True,
)
def uskd(
    *,
    alpha: PositiveFloat = 1.0,
    beta: PositiveFloat = 0.1,
    mu: PositiveFloat = 0.005,
    k: PositiveInt = 1000,
    tap: Tap = "last",
    variant: Literal["paper", "code"] = "paper",
) -> Objective:
    """A student's own soft labels, without a teacher: alpha on the target, beta on the others, mu on a weak head.

    The target's label is q_y^2 + 1 less the mean of q_y^2 over a step. The others' are Zipf's 1 / rank, ranked by q and
    the weak head's probabilities together; the weak head reads the tap and learns the target, smoothed by 0.1.
    Paper: Yang et al. 2023, USKD (arXiv 2303.13005).
    Differs: made for classes; the `k` that rank highest have labels, as many as the paper has classes, and the rest of
    a vocabulary none. Over 32k outcomes it is 2.7 times the cost of forward KL, most of it the weak head,
    which is as wide. `variant: code` ranks by log q where the paper has q, a name used twice. Add
    `supervised.cross_entropy`.
    """
    return Uskd((alpha, beta, mu), k, tap, variant)


class Uskd:
    """The objective; `modules` makes the weak head, and what it measures of a place is q_y^2."""

    def __init__(self, weights: tuple[float, float, float], k: int, tap: str, variant: str) -> None:
        self.weights, self.k, self.taps, self.variant = weights, k, (tap,), variant

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """The weak head."""
        return torch.nn.Linear(widths[self.taps[0]], widths[OUTCOMES])

    def measure(self, view: View) -> torch.Tensor:
        """q_y^2."""
        return (2 * distributions.log_prob_of(view.student_NV, view.target_N)).exp()[:, None]

    def settle(self, measured_NM: torch.Tensor, view: View) -> torch.Tensor:
        """The label of the target."""
        return measured_NM + 1 - (measured_NM.mean() if len(measured_NM) else 0)

    def __call__(self, view: View) -> Loss:
        alpha, beta, mu = self.weights
        weak_NV = view.own(view.features[self.taps[0]].to(view.student_NV.dtype))[:, : view.student_NV.shape[1]]
        target_N1 = view.target_N[:, None]
        two = distributions.apart(view.student_NV, target_N1).clamp_min(distributions.LOWEST)
        log_weak = distributions.log_probs(weak_NV)
        weak_N = -0.9 * log_weak.gather(1, target_N1)[:, 0] - 0.1 * log_weak.mean(1)
        ids, labels = self._labels(view, log_weak.detach())
        # Among themselves: the target is in no sum of the others.
        others = (view.student_NV.gather(1, ids) - two[:, 1:]).clamp_min(distributions.IMPOSSIBLE)
        hard_N = -two.log_softmax(1)[:, 0]
        value_N = alpha * view.settled_NS[:, 0] * hard_N - beta * (labels * others).sum(1) + mu * weak_N
        return Loss(value_N, view.weight_N)

    def _labels(self, view: View, log_weak: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The k outcomes that rank highest and Zipf's law over them, [C, k] each; the target keeps its rank alone."""
        with torch.no_grad():
            target_N1, log_q = view.target_N[:, None], distributions.log_probs(view.student_NV)
            score = torch.zeros_like(log_q)
            for mine in (log_weak.exp(), log_q if self.variant == "code" else log_q.exp()):
                score.add_(mine / (1 - mine.gather(1, target_N1)).clamp_min(distributions.SMALLEST))
            ids = score.topk(min(self.k, score.shape[1]), 1).indices
            zipf = 1 / torch.arange(1, ids.shape[1] + 1, dtype=score.dtype, device=score.device)
            labels = zipf.expand(len(ids), -1).masked_fill(ids == target_N1, 0)
            return ids, labels / labels.sum(1, keepdim=True).clamp_min(distributions.SMALLEST)


@objective(
    reads=("student_NV", "target_N", "teacher", "reference", "weight_N"), item="place", teacher="all", divergence=False
)
def swing(*, low: PositiveFloat = 1.0, high: PositiveFloat = 4.0, noise: Share = 0.5) -> Objective:
    """Cross-entropy to a teacher that is hotter, and blurred, the more a place looks like one that it knows by heart.

    How much, s from 0 to 1, is how much likelier than the reference the teacher finds what stands there; its
    temperature is low + (high - low) s, and the share noise s of its mass is spread evenly.
    Paper: Swing Distillation (a privacy-preserving knowledge distillation framework, 2022).
    Differs: "inspired by": the paper was not readable. The score is ours, its noise is the even distribution and not
    drawn, and neither gives a guarantee of privacy. Three heads are applied: 1.5 times the cost of forward KL.
    """

    def loss(view: View) -> Loss:
        assert view.reference is not None and isinstance(view.teacher, DenseTeacher)
        teacher_NV = view.teacher.logits_NV.detach().to(view.student_NV.dtype)
        reference_NV = view.reference.logits_NV.to(view.student_NV.dtype)
        with torch.no_grad():
            known_N, usual_N = (distributions.log_prob_of(z, view.target_N).exp() for z in (teacher_NV, reference_NV))
            score_N1 = (known_N - usual_N).clamp(0, 1)[:, None]
            p = (teacher_NV / (low + (high - low) * score_N1)).softmax(1)
            possible = teacher_NV.isfinite()
            even_N1 = noise * score_N1 / possible.sum(1, keepdim=True)
            p = p.mul_(1 - noise * score_N1).addcmul_(possible.to(p), even_N1)
        log_q = distributions.log_probs(view.student_NV)
        return Loss(-torch.linalg.vecdot(p, log_q), view.weight_N, {"score": score_N1[:, 0]})

    return loss


@objective(
    reads=("student_NV", "target_N", "teacher", "features", "example_N", "own", "settled_NS", "weight_N"),
    item="place",
    alone=False,
    teacher="all",
    divergence=False,
    surrogate=True,
)
def tgeo(*, temperature: PositiveFloat = 1.5, buckets: PositiveInt = 64) -> Objective:
    """Cross-entropy and KL to the teacher, in a share that a controller finds for every place: alpha for the KL.

    The controller reads six numbers of a place: what both models give to the target, their entropies, their KL, whether
    they agree. It learns by what a step on this place does to the other examples of the batch: the derivative by alpha
    of their mean cross-entropy after a small step of the head. That is an inner product over the vocabulary, taken of
    `buckets` signed sums: exact where there are no more outcomes than buckets.
    Paper: Hu et al. 2024, TGeo-KD (Less or More From Teacher, arXiv 2312.15112).
    Differs: the upper loss is that of the step's other examples, not of a validation set, and its virtual step moves
    the head alone; in the released code no gradient reaches the controller. Six numbers stand for the paper's nine
    vectors of classes. Both heads are applied twice: 2.3 times the cost of forward KL.
    """
    return TGeo(temperature, buckets)


class TGeo:
    """The objective; `modules` makes the controller, and what it measures are two gradients' sums and six numbers."""

    taps = ("last",)

    def __init__(self, temperature: float, buckets: int) -> None:
        self.temperature, self.buckets = temperature, buckets

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """The controller: six numbers to the logit of alpha."""
        nn = torch.nn
        return nn.Sequential(nn.Linear(6, 32), nn.LeakyReLU(), nn.Linear(32, 16), nn.LeakyReLU(), nn.Linear(16, 1))

    def measure(self, view: View) -> torch.Tensor:
        """The cross-entropy's gradient by the logits, how alpha moves that of the loss, both in buckets; the six."""
        log_p, log_q = distributions.outcomes(view)
        soft_p, soft_q = (log.exp() for log in distributions.outcomes(view, self.temperature))
        target_N1 = view.target_N[:, None]
        hard = log_q.exp().scatter_add(1, target_N1, -torch.ones_like(log_q[:, :1]))
        by_alpha = self.temperature * (soft_q - soft_p) - hard
        known = [log.gather(1, target_N1)[:, 0].exp() for log in (log_p, log_q)]
        spread = [distributions.entropy(log) / math.log(log.shape[1]) for log in (log_p, log_q)]
        agree_N = (log_p.argmax(1) == log_q.argmax(1)).to(log_q)
        told = torch.stack([*known, *spread, distributions.kl(log_p, log_q).log1p(), agree_N], 1)
        return torch.cat([self._sums(hard), self._sums(by_alpha), told], 1)

    def _sums(self, values_CV: torch.Tensor) -> torch.Tensor:
        """Signed sums of a row's values in buckets: their inner products are those of the rows, on average."""
        ids_V = torch.arange(values_CV.shape[1], device=values_CV.device)
        sign_V = 1 - 2 * ((ids_V // self.buckets * 2654435761 >> 16) & 1)
        empty = values_CV.new_zeros(len(values_CV), self.buckets)
        return empty.index_add(1, ids_V % self.buckets, values_CV * sign_V)

    def settle(self, measured_NM: torch.Tensor, view: View) -> torch.Tensor:
        """The derivative of the other examples' loss by a place's alpha, and the six numbers."""
        hard, by_alpha, told = measured_NM.split(
            [self.buckets, self.buckets, measured_NM.shape[1] - 2 * self.buckets], 1
        )
        states_ND = view.features["last"].detach().to(measured_NM.dtype)
        whole = hard.t() @ states_ND
        upper_N = torch.zeros_like(told[:, 0])
        for example in view.example_N.unique().tolist():
            at = view.example_N == example
            others = (whole - hard[at].t() @ states_ND[at]) / max(1, int((~at).sum()))
            upper_N[at] = -((by_alpha[at] @ others) * states_ND[at]).sum(1)
        return torch.cat([upper_N[:, None], told], 1)

    def __call__(self, view: View) -> Loss:
        hard_N = -distributions.log_prob_of(view.student_NV, view.target_N)
        soft_N = self.temperature**2 * distributions.kl(*distributions.outcomes(view, self.temperature))
        alpha_N = view.own(view.settled_NS[:, 1:])[:, 0].sigmoid()
        fixed_N = alpha_N.detach()
        value_N = fixed_N * soft_N + (1 - fixed_N) * hard_N + view.settled_NS[:, 0] * (alpha_N - fixed_N)
        return Loss(value_N, view.weight_N, {"alpha": fixed_N})
