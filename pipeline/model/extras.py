"""Models whose layers are of libraries that only some need: diffusers' UNet, layers of torch_geometric.

Kept as those of `nets.py` are. Imports torch; each library is imported when a model is made.
"""

from __future__ import annotations

import importlib
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from pipeline.errors import Refused
from pipeline.model.nets import Nodes, NodesConfig
from pipeline.model.noising import along, signal, spread

# diffusers' models count times so.
TIMES = 1000


def library(name: str, extra: str) -> Any:
    """A library, or a sentence that says how to install it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        text = f"{error.name} is not installed, and this model has its layers: pip install 'stillhouse[{extra}]'"
        raise Refused(text) from error


class UnetConfig(PretrainedConfig):
    """What a `Unet` is made of: `unet` are the arguments of diffusers' UNet2DModel."""

    model_type = "stillhouse-unet"

    def __init__(
        self, shape: tuple[int, ...] = (1, 8, 8), unet: dict[str, Any] | None = None, steps: int = 1, **others: Any
    ) -> None:
        self.shape, self.unet, self.steps = list(shape), unet or {}, steps
        super().__init__(**others)


class Unet(PreTrainedModel):
    """diffusers' UNet2DModel (Ronneberger et al. 2015; Ho et al. 2020) as a denoiser of pictures, as `nets.Denoiser` is
    one of numbers: it tells the velocity."""

    config_class = UnetConfig
    main_input_name = "x"

    def __init__(self, config: UnetConfig) -> None:
        super().__init__(config)
        channels, high, wide = config.shape
        given = {"sample_size": [high, wide], "in_channels": channels, "out_channels": channels, **config.unet}
        self.unet = library("diffusers", "diffusion").UNet2DModel(**given)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as diffusers makes them."""

    def states(self, x: torch.Tensor, t_N: torch.Tensor) -> torch.Tensor:
        """What its last convolution is given, [N, D, H, W]."""
        given: list[torch.Tensor] = []
        with self.unet.conv_out.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0])):
            self.unet(x, t_N * TIMES)
        return given[0]

    @property
    def classifier(self) -> nn.Module:
        """What makes numbers of its states."""
        return nn.Sequential(self.unet.conv_out, nn.Flatten())

    def forward(self, x: torch.Tensor, t_N: torch.Tensor) -> torch.Tensor:
        """The samples [N, C, H, W] that noised ones of the times t_N may have been made of, in the mean."""
        return along(signal(t_N), x) * x + along(spread(t_N), x) * self.unet(x, t_N * TIMES).sample


class GeometricConfig(NodesConfig):
    """What a `Geometric` is made of; `layer` is the name of a layer of torch_geometric."""

    model_type = "stillhouse-geometric"

    def __init__(self, layer: str = "SAGEConv", **others: Any) -> None:
        self.layer = layer
        super().__init__(**others)


class Geometric(Nodes):
    """Layers of torch_geometric over the numbers of every node and those of its neighbours, and a linear head."""

    config_class = GeometricConfig  # type: ignore[assignment]

    def __init__(self, config: GeometricConfig) -> None:
        super().__init__(config)
        make = getattr(library("torch_geometric.nn", "graphs"), config.layer)
        self.layers = nn.ModuleList(make(i, o) for i, o in pairwise([config.numbers, *config.widths]))

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Logits [M, V] of nodes x [M, F], of which edges [2, E] say who has which neighbour."""
        seen = x
        for layer in self.layers:
            # There an edge goes from a neighbour to the node that hears of it.
            seen = nn.functional.relu(layer(seen, edges.flip(0)))
            seen = nn.functional.dropout(seen, self.config.dropout, self.training)
        return self.classifier(seen)
