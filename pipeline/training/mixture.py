"""Two language models as one that answers are drawn from: the mixture of what they say next."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn


class Said(NamedTuple):
    """What `LocalModel` looks at of a model's output."""

    logits: torch.Tensor


class Mixture(nn.Module):
    """A student of which the teacher has a share: share p + (1 - share) q at every token.

    The teacher's keys and values lie in the student's cache, behind its own, so that rows are chosen in both at once.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, share: float) -> None:
        super().__init__()
        self.student: Any = student
        self.teacher: Any = teacher
        self.share = share
        self.cache: Any = None
        self.config, self.device, self.dtype = self.student.config, self.student.device, self.student.dtype

    def get_output_embeddings(self) -> nn.Module:
        """The student's."""
        return self.student.get_output_embeddings()

    def forward(self, ids_RT: torch.Tensor, past_key_values: Any, position_ids: Any = None, **more: Any) -> Said:
        """The logarithm of the mixture after the last token."""
        if not past_key_values.get_seq_length():
            self.cache = transformers.DynamicCache(config=self.teacher.config)
            past_key_values.layers.extend(self.cache.layers)
        if position_ids is not None:
            more["position_ids"] = position_ids
        q_RTV = self.student(ids_RT, past_key_values=past_key_values, **more).logits[:, -1:].float().log_softmax(-1)
        p_RTV = self.teacher(ids_RT, past_key_values=self.cache, **more).logits[:, -1:].float().log_softmax(-1)
        # Columns that only one of the two has are padding of its embedding.
        width = min(q_RTV.shape[-1], p_RTV.shape[-1])
        p_RTV, q_RTV = (each[..., :width] for each in (p_RTV, q_RTV))
        return Said(torch.logaddexp(p_RTV + math.log(self.share), q_RTV + math.log1p(-self.share)))
