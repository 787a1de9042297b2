"""Small models of this project's own, kept as transformers keeps its: `config.json` and `model.safetensors`.

Imports torch: whoever only names a method must not import it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

GROUPS = 4


class ConvConfig(PretrainedConfig):
    """What a `Conv` is made of."""

    model_type = "stillhouse-conv"

    def __init__(self, widths: tuple[int, ...] = (8, 16), num_channels: int = 1, **others: Any) -> None:
        self.widths, self.num_channels = list(widths), num_channels
        super().__init__(**others)


class Conv(PreTrainedModel):
    """Blocks of a 3 x 3 convolution, group norm, ReLU and pooling by 2; the head is given the mean over the picture.

    Group norm, because a batch norm would move when a frozen model is called.
    """

    config_class = ConvConfig
    main_input_name = "pixel_values"

    def __init__(self, config: ConvConfig) -> None:
        super().__init__(config)
        before = [config.num_channels, *config.widths[:-1]]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(GROUPS, o), nn.ReLU())
            for i, o in zip(before, config.widths, strict=True)
        )
        self.classifier = nn.Linear(config.widths[-1], config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as torch makes them."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] of pictures [B, C, H, W]."""
        seen = pixel_values
        for i, block in enumerate(self.blocks):
            seen = block(seen if i == 0 else nn.functional.max_pool2d(seen, 2))
        return self.classifier(seen.mean((2, 3)))


OURS: dict[str, type[PreTrainedModel]] = {"stillhouse-conv": Conv}


def opened(folder: Path, auto: Any, dtype: str) -> Any:
    """The model of a folder, one of these or one that `auto` of transformers knows, in evaluation mode."""
    transformers.utils.logging.set_verbosity_error()
    kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    return OURS.get(kind, auto).from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
