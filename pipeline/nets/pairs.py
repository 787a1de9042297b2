"""Models of pairs: two vectors of one thing, made one.

Imports torch: whoever only names a method must not import it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class PairConfig(PretrainedConfig):
    """What a `Pair` is made of: the `numbers` of either vector, and the width of what is made of both."""

    model_type = "stillhouse-pair"

    def __init__(self, numbers: tuple[int, int] = (8, 8), width: int = 16, **others: Any) -> None:
        self.numbers, self.width = list(numbers), width
        super().__init__(**others)


class Pair(PreTrainedModel):
    """The mean of a projection of the one vector and of the other's, whose scale and shift the other tells by itself
    after a layer norm (adaptive layer norm, Perez et al. 2018, arXiv 1709.07871); the head reads it."""

    config_class = PairConfig
    main_input_name = "one"

    def __init__(self, config: PairConfig) -> None:
        super().__init__(config)
        first, second = config.numbers
        self.one, self.other = nn.Linear(first, config.width), Adapted(second, config.width)
        self.classifier = nn.Linear(config.width, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as torch makes them."""

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] of the two vectors [B, F] and [B, G]."""
        return self.classifier((self.one(one) + self.other(other)) / 2)


class Adapted(nn.Module):
    """A vector after a layer norm, stretched and moved by what a layer makes of it."""

    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.layer, self.moves = nn.Linear(given, width), nn.Linear(given, 2 * width)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """[B, width] of [B, given]."""
        scale, shift = self.moves(given).chunk(2, 1)
        plain = nn.functional.layer_norm(self.layer(given), scale.shape[1:])
        return plain * (1 + scale) + shift
