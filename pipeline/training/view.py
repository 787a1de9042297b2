"""The view of a batch that an objective is given: shift and mask happen here, once.

Position t-1 predicts token t, and only tokens inside the loss spans survive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from pipeline.kinds.objective import DenseTeacher, Teacher, TokenView, TopKTeacher


def loss_mask(spans_B: Sequence[Sequence[Mapping[str, int]]], length: int) -> torch.Tensor:
    """Half-open spans {start, end} of each example, to a bool [B, T] that is true at loss tokens."""
    loss_BT = torch.zeros(len(spans_B), length, dtype=torch.bool)
    for row, spans in enumerate(spans_B):
        for span in spans:
            loss_BT[row, span["start"] : span["end"]] = True
    return loss_BT


def predictors(loss_BT: torch.Tensor) -> torch.Tensor:
    """A bool [B, T] that is true where the model's output predicts a loss token: one position before it.

    `hidden_BTD[predictors(loss_BT)]` is the [N, D] that needs logits at all; a model whose head is applied to that
    alone never makes the [B, T, V].
    """
    if loss_BT[:, 0].any():
        raise ValueError("the first token of a sequence is a loss token, and nothing predicts it")
    return loss_BT.roll(-1, 1)


def at_loss(logits_BTV: torch.Tensor, loss_BT: torch.Tensor) -> torch.Tensor:
    """The logits that predict the loss tokens, [N, V], in the order of a `TokenView`, in float32 or wider."""
    return _wide(logits_BTV[predictors(loss_BT).to(logits_BTV.device)])


def make_view(
    logits: torch.Tensor,
    token_ids_BT: torch.Tensor,
    loss_BT: torch.Tensor,
    weight_B: torch.Tensor,
    teacher: Teacher | None = None,
    vocab_size: int | None = None,
) -> TokenView:
    """The loss tokens of a padded batch.

    `logits` are the model's [B, T, V], or [N, V] if it computed them at `predictors(loss_BT)` only. `loss_BT` is true
    at tokens to be learnt (`loss_mask`), padding and prompts are false. `teacher` has one row per loss token already:
    a live one is `DenseTeacher(at_loss(teacher_logits_BTV, loss_BT))`, a stored one the concatenation of the
    examples' rows in the order of the batch. Columns from `vocab_size` on are padding of the embedding and are
    dropped; without it, those that only one of the two models has are.
    """
    device = logits.device
    loss_BT = loss_BT.to(device)
    example_N, position_N = loss_BT.nonzero(as_tuple=True)
    student_NV = at_loss(logits, loss_BT) if logits.dim() == 3 else _wide(logits)
    rows = {"logits": len(student_NV), "teacher": _rows(teacher)}
    for name, n in rows.items():
        if n not in (None, len(example_N)):
            raise ValueError(f"the batch has {len(example_N)} loss tokens, and its {name} has {n} rows")
    width = vocab_size or student_NV.shape[1]
    if isinstance(teacher, DenseTeacher):
        width = min(width, teacher.logits_NV.shape[1])
        teacher = replace(teacher, logits_NV=teacher.logits_NV[:, :width])
    return TokenView(
        student_NV=student_NV[:, :width],
        target_N=token_ids_BT.to(device)[example_N, position_N],
        example_N=example_N,
        weight_N=weight_B.to(device, student_NV.dtype)[example_N],
        teacher=teacher,
    )


def _wide(logits: torch.Tensor) -> torch.Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _rows(teacher: Teacher | None) -> int | None:
    match teacher:
        case DenseTeacher():
            return len(teacher.logits_NV)
        case TopKTeacher():
            return len(teacher.ids_NK)
    return None
