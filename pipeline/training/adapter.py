"""Low-rank adapters on a student."""

from __future__ import annotations

from typing import Any

import transformers
from torch import nn

from pipeline.training.recipe import Adapter


def with_adapter(model: nn.Module, adapter: Adapter) -> Any:
    """The model with low-rank adapters on all its linear layers but the head."""
    import peft

    config = peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules="all-linear",
        # GPT-2 keeps its matrices transposed, in a layer of its own.
        fan_in_fan_out=any(isinstance(m, transformers.pytorch_utils.Conv1D) for m in model.modules()),
        task_type="CAUSAL_LM" if isinstance(model, transformers.GenerationMixin) else None,
    )
    return peft.get_peft_model(model, config)
