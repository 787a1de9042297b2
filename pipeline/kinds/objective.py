"""What an objective sees: the loss tokens of a batch, and nothing else.

Shift and mask happen once, in `make_view`: position t-1 predicts token t, and only tokens inside the loss spans
survive. No objective sees a mask, a padding token or a pair of shifted tensors, so none can get them wrong.

Tensors carry their shape in their name: B sequences, T positions, N loss tokens of the batch, V vocabulary, K stored
outcomes of a teacher.  A training step is

    loss_BT = loss_mask([example["spans"] for example in batch], length=T)
    view = make_view(model(token_ids_BT).logits, token_ids_BT, loss_BT, weight_B, teacher)
    loss = objective(view.restrict(method.traits["reads"]))
    reduce([loss], normaliser).backward()    # normaliser: the loss tokens of the whole step, over all ranks
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from pipeline.errors import Refused

if TYPE_CHECKING:
    import torch
else:
    # `plan` imports the objectives, and with them this module, to read their signatures; it must not load torch.
    from pipeline.core.methods import lazy

    torch = lazy("torch")


from pipeline.core.methods import marker

# Log-probability of what cannot happen: a column of -inf. It is finite because 0 * log 0 is not a number, and far
# below what logits of 1e4 give.
IMPOSSIBLE = -1e6
# A logit that adds nothing to any sum, and a mass that adds nothing and still has a logarithm, both in float32.
LOWEST = -1e38
SMALLEST = 1e-37


@dataclass(frozen=True)
class DenseTeacher:
    """The teacher's raw logits at every loss token, over the student's vocabulary."""

    logits_NV: torch.Tensor


@dataclass(frozen=True)
class TopKTeacher:
    """The teacher's distribution as K + 1 outcomes: its K likeliest tokens, and all others together.

    `logprobs_NK` and the mass `tail_N` were taken at `temperature`, over the whole vocabulary.
    """

    ids_NK: torch.Tensor
    logprobs_NK: torch.Tensor
    tail_N: torch.Tensor
    temperature: float = 1.0


Teacher = DenseTeacher | TopKTeacher


@dataclass(frozen=True)
class TokenView:
    """One entry per loss token, in the order of the batch: by example, then by position.

    `student_NV` are raw logits in float32 (float64 if the model computes so), `example_N` the row of the batch that a
    token stands in, `weight_N` the weight of its example.
    """

    student_NV: torch.Tensor
    target_N: torch.Tensor
    example_N: torch.Tensor
    weight_N: torch.Tensor
    teacher: Teacher | None = None

    def restrict(self, reads: Iterable[str]) -> TokenView:
        """The same view, on which reading any other field raises: a method's trait `reads` is the truth about it."""
        return cast(TokenView, _Restricted(self, frozenset(reads)))


class _Restricted:
    def __init__(self, view: TokenView, reads: frozenset[str]) -> None:
        self._view, self._reads = view, reads

    def __getattr__(self, name: str) -> object:
        if name not in self._reads:
            raise AttributeError(
                f"the objective reads {name}, which its `reads` does not declare: {sorted(self._reads)}"
            )
        return getattr(self._view, name)


@dataclass(frozen=True)
class Loss:
    """One value and one weight per item (a token of a `TokenView`), and metrics of the same length, never a scalar."""

    value_N: torch.Tensor
    weight_N: torch.Tensor
    metrics: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def detached(self) -> Loss:
        """The same numbers, without what made them."""
        metrics = {name: metric.detach() for name, metric in self.metrics.items()}
        return Loss(self.value_N.detach(), self.weight_N.detach(), metrics)


@dataclass(frozen=True)
class Reduced:
    """A step's loss over all micro-batches and ranks: what is logged, and what a method with state is updated by."""

    value: float
    items: int
    metrics: Mapping[str, float]


class Objective(Protocol):
    """A view to a loss per item.

    Calling it moves no state. A method with memory is an object that has `update(reduced: Reduced)` too; the trainer
    calls that once per optimizer step, after `summarise`, and never in evaluation.
    """

    def __call__(self, view: TokenView) -> Loss: ...


def outcomes(view: TokenView, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Teacher's and student's log-probabilities of the same outcomes at a temperature: [N, V], or [N, K + 1].

    A dense teacher gives the V tokens. A stored one gives its K tokens and, last, all others together, for both: two
    whole distributions, so that a divergence between them is a true one and never above the dense one. The student's
    mass on the others is summed, not taken as 1 minus the K, which in float32 is noise when they are nearly all.
    At another temperature the stored mass of the others is unknown (it depends on how it was spread), so that is
    refused. No gradient flows to the teacher.
    """
    student_NV = view.student_NV if temperature == 1 else view.student_NV / temperature
    match view.teacher:
        case DenseTeacher(logits_NV):
            log_p, log_q = (logits_NV.detach() / temperature).log_softmax(1), student_NV.log_softmax(1)
        case TopKTeacher(ids_NK, logprobs_NK, tail_N, stored):
            # Close, not equal: 0.7 comes back from a float32 as 0.69999999.
            if not math.isclose(stored, temperature, rel_tol=1e-6):
                raise Refused(
                    f"the stored signals were taken at temperature {stored:g} and the objective asks for "
                    f"{temperature:g}: the mass of the tokens that were not stored is unknown there. "
                    f"Write `temperature: {stored:g}` for the objective."
                )
            ids_NK = ids_NK.long()
            # A tail that the float could not hold is small, not impossible.
            log_tail = tail_N.detach().clamp_min(SMALLEST).log()
            log_p = torch.cat([logprobs_NK.detach(), log_tail[:, None]], 1).log_softmax(1)
            rest = student_NV.scatter(1, ids_NK, LOWEST).logsumexp(1, keepdim=True)
            taken = student_NV.gather(1, ids_NK).clamp_min(LOWEST)
            log_q = torch.cat([taken, rest], 1).log_softmax(1)
        case None:
            raise Refused(
                "the objective compares the student with a teacher's distribution, and these examples have none. "
                "Train on signals (add a `probe` of the examples), or use `supervised.cross_entropy`."
            )
    return log_p.clamp_min(IMPOSSIBLE), log_q.clamp_min(IMPOSSIBLE)


objective = marker("objective")
