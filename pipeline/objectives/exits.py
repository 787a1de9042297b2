"""Objectives of exit heads: what a model's middle would say, if it had to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import PositiveFloat

from pipeline.core.methods import lazy
from pipeline.kinds.objective import OUTCOMES, Loss, Objective, Tap, View, objective

if TYPE_CHECKING:
    import torch

    from pipeline.model import distributions
else:
    torch = lazy("torch")
    distributions = lazy("pipeline.model.distributions")


@objective(reads=("features", "target_N", "teacher", "own", "weight_N"), item="place", teacher="any", divergence=False)
def ofa(*, tap: Tap, gamma: PositiveFloat = 1.0) -> Objective:
    """A trained head on a tap learns the teacher's distribution, enhanced at the outcome that stands there:
    -sum ((p + 1[target]) ^ gamma - 1[target]) log q. With gamma 1 it is cross-entropy against the teacher.

    Paper: Hao et al. 2023 (One-for-all, OFA-KD, arXiv 2310.19444), equation 4, without a temperature.
    Differs: an exit is one linear layer. Theirs are convolutional blocks, and the same loss stands on the last logits.
    """
    return Exit(tap, gamma)


class Exit:
    """See `ofa`; `modules` makes its head."""

    def __init__(self, tap: str, gamma: float) -> None:
        self.taps, self.gamma = (tap,), gamma

    def modules(self, widths: Mapping[str, int], teacher_widths: Mapping[str, int]) -> torch.nn.Module:
        """From the tap to the outcomes of the head that the term names."""
        return torch.nn.Linear(widths[self.taps[0]], widths[OUTCOMES])

    def __call__(self, view: View) -> Loss:
        logits_NV = view.own(view.features[self.taps[0]])
        log_p, log_q = distributions.outcomes(View(student_NV=logits_NV, teacher=view.teacher))
        stands = self._stands(view, log_p)
        share = (log_p.exp() + stands) ** self.gamma - stands
        return Loss(-(share * log_q).sum(1), view.weight_N)

    def _stands(self, view: View, log_p: torch.Tensor) -> torch.Tensor:
        """1 at the outcome that stands there, which of a stored top-k may be one of the others, 0 elsewhere."""
        target_N1, listed = view.target_N[:, None], getattr(view.teacher, "ids_NK", None)
        if listed is None:
            found = torch.arange(log_p.shape[1], device=log_p.device) == target_N1
        else:
            found = listed == target_N1
            found = torch.cat([found, (target_N1 >= 0) & ~found.any(1, keepdim=True)], 1)
        return found.to(log_p.dtype)
