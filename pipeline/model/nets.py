"""Small models of this project's own, kept as transformers keeps its: `config.json` and `model.safetensors`.

Imports torch: whoever only names a method must not import it.
"""

from __future__ import annotations

import json
from itertools import pairwise
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
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(GROUPS, o), nn.ReLU())
            for i, o in pairwise([config.num_channels, *config.widths])
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


class NodesConfig(PretrainedConfig):
    """What a `Nodes` is made of; one that is `linked` is a graph convolutional network, another is an MLP."""

    model_type = "stillhouse-nodes"

    def __init__(
        self,
        numbers: int = 1,
        widths: tuple[int, ...] = (16,),
        linked: bool = True,
        dropout: float = 0.0,
        **others: Any,
    ) -> None:
        self.numbers, self.widths, self.linked, self.dropout = numbers, list(widths), linked, dropout
        super().__init__(**others)


class Nodes(PreTrainedModel):
    """Linear layers over the numbers of every node, with the mean over its neighbours and itself before each if it is
    linked: the sum of theirs over the root of both their numbers of neighbours (Kipf & Welling 2017)."""

    config_class = NodesConfig
    main_input_name = "x"

    def __init__(self, config: NodesConfig) -> None:
        super().__init__(config)
        widths = [config.numbers, *config.widths]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.classifier = nn.Linear(widths[-1], config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as torch makes them."""

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Logits [M, V] of nodes x [M, F], of which edges [2, E] say who has which neighbour."""
        seen = x
        for layer in self.layers:
            seen = nn.functional.relu(layer(self._around(seen, edges)))
            seen = nn.functional.dropout(seen, self.config.dropout, self.training)
        return self.classifier(self._around(seen, edges))

    def _around(self, seen: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        if not self.config.linked:
            return seen
        own = torch.arange(len(seen), device=seen.device)
        to, source = torch.cat([edges, own.expand(2, -1)], 1)
        root = torch.bincount(to, minlength=len(seen)).to(seen.dtype).rsqrt()
        share = root[to] * root[source]
        return torch.zeros_like(seen).index_add(0, to, seen[source] * share[:, None])


class MapConfig(PretrainedConfig):
    """What a `Map` is made of."""

    model_type = "stillhouse-map"

    def __init__(self, widths: tuple[int, ...] = (16, 16), num_channels: int = 1, **others: Any) -> None:
        self.widths, self.num_channels = list(widths), num_channels
        super().__init__(**others)


class Map(PreTrainedModel):
    """Blocks of a dilated 3 x 3 convolution, group norm and ReLU, as large as the picture; the head is a convolution of
    one pixel. The convolutions reach 1, 2, 4 and 8 pixels far, and from there on again."""

    config_class = MapConfig
    main_input_name = "pixel_values"

    def __init__(self, config: MapConfig) -> None:
        super().__init__(config)
        reach = [2 ** (i % 4) for i in range(len(config.widths))]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, padding=far, dilation=far), nn.GroupNorm(GROUPS, o), nn.ReLU())
            for far, (i, o) in zip(reach, pairwise([config.num_channels, *config.widths]), strict=True)
        )
        self.classifier = nn.Conv2d(config.widths[-1], config.num_labels, 1)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as torch makes them."""

    def forward(self, pixel_values: torch.Tensor) -> transformers.utils.ModelOutput:
        """Logits [B, V, H, W] of pictures [B, C, H, W]."""
        seen = pixel_values
        for block in self.blocks:
            seen = block(seen)
        return transformers.utils.ModelOutput(logits=self.classifier(seen))


class Pointwise(nn.Module):
    """A convolution of one pixel, as a head of rows of states."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, states_ND: torch.Tensor) -> torch.Tensor:
        """Logits [N, V]."""
        return nn.functional.linear(states_ND, self.conv.weight.flatten(1), self.conv.bias)


OURS: dict[str, type[PreTrainedModel]] = {"stillhouse-conv": Conv, "stillhouse-nodes": Nodes, "stillhouse-map": Map}


def opened(folder: Path, auto: Any, dtype: str) -> Any:
    """The model of a folder, one of these or one that `auto` of transformers knows, in evaluation mode."""
    transformers.utils.logging.set_verbosity_error()
    kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    return OURS.get(kind, auto).from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
