"""Objectives that choose where they look: some places of a step count, and the others do not.

A choice hangs on all places of a step, so most have a first look at them (`pipeline/kinds/objective.py`), which costs
the logits a second time. A mean is over the places that were chosen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.core.methods import lazy
from pipeline.kinds.objective import DenseTeacher, Loss, Objective, View, objective

if TYPE_CHECKING:
    import torch

    from pipeline.model import distributions
else:
    torch = lazy("torch")
    distributions = lazy("pipeline.model.distributions")

Share = Annotated[float, Field(gt=0, le=1)]


@objective(
    reads=("student_NV", "teacher", "reference", "settled_NS", "weight_N"),
    item="place",
    alone=False,
    first=("reference",),
    chooses=True,
    teacher="any",
    divergence=False,
)
def adaspec(*, share: Share = 0.4, variant: Literal["paper", "code"] = "paper") -> Objective:
    """Forward KL on the share of places where the student is furthest behind the reference: those that can be learnt.

    The reference is a copy of the student that was distilled from the same teacher; how far is KL(p || q) less
    KL(p || reference).
    Paper: Hu et al. 2025, AdaSPEC (arXiv 2510.19779).
    Differs: nothing; places as far as the last one chosen are chosen too. `variant: code` divides by the number of all
    places, as the released code does when it is told that number: the rate then shrinks with the share. Three heads are
    applied everywhere, and two again where it was chosen: 1.4 times the cost of forward KL.
    """
    return AdaSpec(share, variant)


class AdaSpec:
    """The objective; what it measures of a place is how far the student is behind."""

    def __init__(self, share: float, variant: str) -> None:
        self.share, self.variant = share, variant

    def measure(self, view: View) -> torch.Tensor:
        """KL(p || q) less KL(p || reference)."""
        assert view.reference is not None
        as_reference = View(student_NV=view.reference.logits_NV.to(view.student_NV.dtype), teacher=view.teacher)
        mine_N, its_N = (distributions.kl(*distributions.outcomes(seen)) for seen in (view, as_reference))
        return (mine_N - its_N)[:, None]

    def settle(self, measured_NM: torch.Tensor, view: View) -> torch.Tensor:
        """What every place counts."""
        behind_N = measured_NM[:, 0]
        if not len(behind_N):
            return measured_NM
        chosen_N = behind_N >= behind_N.quantile(1 - self.share)
        return (chosen_N.to(behind_N) if self.variant == "code" else counts(chosen_N, behind_N))[:, None]

    def __call__(self, view: View) -> Loss:
        value_N = distributions.kl(*distributions.outcomes(view))
        return Loss(value_N * view.settled_NS[:, 0], view.weight_N)


@objective(
    reads=("student_NV", "teacher", "example_N", "settled_NS", "weight_N"),
    item="place",
    alone=False,
    second=("teacher",),
    chooses=True,
    teacher="all",
    divergence=False,
)
def indirect(*, k: PositiveInt = 10, share: Share = 0.1) -> Objective:
    """The student's k likeliest outcomes, ranked as the teacher ranks them, in the opener of every example.

    The loss is -log of a ranking's probability under the student (Plackett-Luce). The opener is the shortest beginning
    that holds the share of the student's entropy in the example.
    Paper: TSD-KD (token-selective dual distillation, 2026), the indirect part.
    Differs: the released code sums over those before an outcome where the formula has those after, and so learns the
    ranking backwards; it takes the opener of the batch, less its last place, where the paper's is an example's.
    """
    return Indirect(k, share)


class Indirect:
    """The objective; what it measures of a place is the student's entropy."""

    def __init__(self, k: int, share: float) -> None:
        self.k, self.share = k, share

    def measure(self, view: View) -> torch.Tensor:
        """The entropy of q."""
        return distributions.entropy(distributions.log_probs(view.student_NV))[:, None]

    def settle(self, measured_NM: torch.Tensor, view: View) -> torch.Tensor:
        """What every place counts: those before which an example's entropy is not yet the share of its whole."""
        entropy_N = measured_NM[:, 0].double()
        if not len(entropy_N):
            return measured_NM
        before_N = entropy_N.cumsum(0) - entropy_N
        first_N = torch.ones_like(view.example_N, dtype=torch.bool)
        first_N[1:] = view.example_N[1:] != view.example_N[:-1]
        run_N = first_N.cumsum(0) - 1
        whole_R = entropy_N.new_zeros(int(run_N[-1]) + 1).index_add(0, run_N, entropy_N)
        opener_N = before_N - before_N[first_N][run_N] < self.share * whole_R[run_N]
        return counts(opener_N | first_N, measured_NM[:, 0])[:, None]

    def __call__(self, view: View) -> Loss:
        assert isinstance(view.teacher, DenseTeacher)
        ids_NK = view.student_NV.detach().topk(min(self.k, view.student_NV.shape[1]), 1).indices
        order_NK = view.teacher.logits_NV.gather(1, ids_NK).argsort(dim=1, descending=True, stable=True)
        chosen_NK = distributions.log_probs(view.student_NV).gather(1, ids_NK.gather(1, order_NK))
        return Loss(rank_loss(chosen_NK) * view.settled_NS[:, 0], view.weight_N)


def rank_loss(scores_CK: torch.Tensor) -> torch.Tensor:
    """-log of the probability that outcomes come in this order, one after another by their scores, [C]."""
    after_CK = scores_CK.flip(1).logcumsumexp(1).flip(1)
    return (after_CK - scores_CK).sum(1)


@objective(reads=("student_NV", "teacher", "weight_N"), item="place", teacher="any", divergence=True, surrogate=True)
def gated(*, beta: Annotated[float, Field(gt=0, lt=1)] = 0.9, sharpness: PositiveFloat = 1.0) -> Objective:
    """Jensen-Shannon, most where the student is less sure than its teacher: times sigmoid((H(q) - H(p)) / sharpness).

    No gradient goes through the gate.
    Paper: TSD-KD (token-selective dual distillation, 2026), the direct part.
    Differs: on places that are given, unless the entry's feed samples them from the student, as the paper does.
    """

    def loss(view: View) -> Loss:
        log_p, log_q = distributions.outcomes(view)
        with torch.no_grad():
            gate_N = ((distributions.entropy(log_q) - distributions.entropy(log_p)) / sharpness).sigmoid()
        return Loss(gate_N * distributions.jsd(log_p, log_q, beta), view.weight_N)

    return loss


@objective(
    reads=("student_NV", "settled_NS", "weight_N"),
    item="place",
    alone=False,
    chooses=True,
    teacher="none",
    divergence=False,
)
def entropy(*, share: Share = 0.1) -> Objective:
    """The student's entropy at the share of a step's places where it is highest.

    Paper: TSD-KD (token-selective dual distillation, 2026), its entropy minimisation.
    Differs: the released code takes the quantile from the wrong end, and so all but the lowest share.
    """
    return Entropy(share)


class Entropy:
    """The objective; what it measures of a place is its own value."""

    def __init__(self, share: float) -> None:
        self.share = share

    def measure(self, view: View) -> torch.Tensor:
        """The entropy of q."""
        return distributions.entropy(distributions.log_probs(view.student_NV))[:, None]

    def settle(self, measured_NM: torch.Tensor, view: View) -> torch.Tensor:
        """What every place counts."""
        highest = measured_NM[:, 0].argsort(descending=True, stable=True)
        chosen_N = torch.zeros_like(highest, dtype=torch.bool)
        chosen_N[highest[: math.ceil(self.share * len(highest))]] = True
        return counts(chosen_N, measured_NM[:, 0])[:, None]

    def __call__(self, view: View) -> Loss:
        value_N = distributions.entropy(distributions.log_probs(view.student_NV))
        return Loss(value_N * view.settled_NS[:, 0], view.weight_N)


def counts(chosen_N: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """What each place counts, so that a mean over all places is one over those that are chosen."""
    return chosen_N.to(like) * (len(chosen_N) / chosen_N.sum().clamp_min(1))
