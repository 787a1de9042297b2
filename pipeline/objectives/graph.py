"""Objectives over which outcomes rise and fall together within an answer, whatever tokens it is cut into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pipeline.core.methods import lazy
from pipeline.kinds.objective import Loss, Objective, View, objective

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@objective(
    reads=("student_NV", "other", "settled_NS", "example_N", "weight_N"),
    item="place",
    per="example",
    teacher="other",
    across="bytes",
    alone=False,
    divergence=False,
)
def on_logits(*, top: Annotated[int, Field(ge=2)] = 64) -> Objective:
    """The distance between how much each of the `top` ranks of logits rises with the others, for student and teacher.

    At a place the largest logits, sorted, less the first and at a mean square of 1, are z; an answer's graph is the
    mean of z z' over its places, a rank's feature the mean of its row. The features of both, sorted, are compared rank
    by rank, which takes the place of the Gromov-Wasserstein distance; an answer's value is the sum of what its places
    add. The term of tokens is `across.uld`, beside this one.
    Paper: inspired by Wang et al. 2025, InfiGFusion (arXiv 2505.13893), of which a figure and a summary were read.
    Differs: one teacher; that the feature is the mean of a row is our reading. The sum stands for the paper's distance.
    """
    return OnLogits(top)


class OnLogits:
    """The objective. A first look finds for every answer which rank's feature is above the teacher's.

    The distance is then a sum over places, each of which needs no other: sum of s (f - g) with s the sign of f - g.
    """

    def __init__(self, top: int) -> None:
        self.top = top

    def measure(self, view: View) -> torch.Tensor:
        """What a place adds to the student's features, and to the teacher's, [N, 2 K]."""
        width = min(self.top, view.student_NV.shape[1], view.other.logits_NU.shape[1])
        both = view.student_NV, view.other.logits_NU.to(view.student_NV.dtype)
        return torch.cat([_rises(each, width) for each in both], 1)

    def settle(self, measured_NM: torch.Tensor, view: View) -> torch.Tensor:
        """The sign of each rank over the places of its answer, and what the teacher has of the sum, [N, K + 1]."""
        answers = int(view.example_N.max()) + 1 if len(view.example_N) else 0
        places_B = torch.bincount(view.example_N, minlength=answers).to(measured_NM).clamp_min(1)
        sums_BM = measured_NM.new_zeros(answers, measured_NM.shape[1]).index_add(0, view.example_N, measured_NM)
        own_BK, other_BK = (sums_BM / places_B[:, None]).chunk(2, 1)
        rank_BK = own_BK.argsort(dim=1, stable=True)
        sign_BK = (own_BK.gather(1, rank_BK) - other_BK.sort(1)[0]).sign()
        teachers_B1 = (sign_BK * other_BK.sort(1)[0]).sum(1, keepdim=True)
        of_answer = torch.cat([torch.zeros_like(own_BK).scatter(1, rank_BK, sign_BK), teachers_B1], 1)
        return (of_answer / places_B[:, None])[view.example_N]

    def __call__(self, view: View) -> Loss:
        sign_NK, teachers_N = view.settled_NS[:, :-1], view.settled_NS[:, -1]
        rises_NK = _rises(view.student_NV, sign_NK.shape[1])
        return Loss((sign_NK * rises_NK).sum(1) - teachers_N, view.weight_N)


# Nats below the largest beyond which a logit says nothing.
DEEP = 30.0


def _rises(logits_NV: torch.Tensor, width: int) -> torch.Tensor:
    """z times its mean: a place's part of the mean rows of its answer's graph, [N, K]."""
    largest_NK = logits_NV.topk(width, 1)[0]
    z_NK = (largest_NK - largest_NK[:, :1]).clamp_min(-DEEP)
    z_NK = z_NK / z_NK.square().mean(1, keepdim=True).clamp_min(1e-12).sqrt()
    return z_NK * z_NK.mean(1, keepdim=True)
