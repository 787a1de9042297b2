"""Models that make samples of noise.

Imports torch: whoever only names a method must not import it.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from pipeline.model.noising import along, signal, spread
from pipeline.nets.library import library

# Of a time, sines and cosines.
WAVES = 4
# diffusers' models count times so.
TIMES = 1000


class DenoiserConfig(PretrainedConfig):
    """What a `Denoiser` is made of: `shape` is that of a sample; it makes one of noise in so many `steps`."""

    model_type = "stillhouse-denoiser"

    def __init__(
        self, shape: tuple[int, ...] = (2,), width: int = 64, layers: int = 3, steps: int = 1, **others: Any
    ) -> None:
        self.shape, self.width, self.layers, self.steps = list(shape), width, layers, steps
        super().__init__(**others)


class Denoiser(PreTrainedModel):
    """An MLP over the numbers of a noised sample and waves of its time, which tells the sample (`model/noising.py`).

    The layers tell F, and the sample is signal x + spread F: they learn the velocity (Salimans & Ho 2022, arXiv
    2202.00512, with its sign turned), and of pure noise the sample is F.
    """

    config_class = DenoiserConfig
    main_input_name = "x"

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__(config)
        self.numbers = math.prod(config.shape)
        widths = [self.numbers + 2 * WAVES, *[config.width] * config.layers]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.classifier = nn.Linear(widths[-1], self.numbers)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as torch makes them."""

    def states(self, x: torch.Tensor, t_N: torch.Tensor) -> torch.Tensor:
        """What the last layer is given, [N, width]."""
        waves_NW = t_N[:, None] * torch.arange(1, WAVES + 1, device=x.device) * (math.pi / 2)
        seen = torch.cat([x.flatten(1), waves_NW.sin(), waves_NW.cos()], 1)
        for layer in self.layers:
            seen = nn.functional.silu(layer(seen))
        return seen

    def forward(self, x: torch.Tensor, t_N: torch.Tensor) -> torch.Tensor:
        """The samples [N, ...] that noised ones of the times t_N may have been made of, in the mean."""
        turned = self.classifier(self.states(x, t_N)).view_as(x)
        return along(signal(t_N), x) * x + along(spread(t_N), x) * turned


class CanvasConfig(PretrainedConfig):
    """What a `Canvas` is made of: so many samples of a shape."""

    model_type = "stillhouse-canvas"

    def __init__(self, samples: int = 256, shape: tuple[int, ...] = (2,), steps: int = 1, **others: Any) -> None:
        self.samples, self.shape, self.steps = samples, list(shape), steps
        super().__init__(**others)


class Canvas(PreTrainedModel):
    """Samples that are weights: whatever it is asked, it answers with itself. Noise only says how many are wanted."""

    config_class = CanvasConfig
    main_input_name = "x"

    def __init__(self, config: CanvasConfig) -> None:
        super().__init__(config)
        self.made = nn.Parameter(torch.randn(config.samples, *config.shape))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """They begin as noise."""

    def forward(self, x: torch.Tensor, t_N: torch.Tensor) -> torch.Tensor:
        """Its samples, again and again until there are as many as in x [N, ...]."""
        return self.made[torch.arange(len(x), device=x.device) % len(self.made)]


class UnetConfig(PretrainedConfig):
    """What a `Unet` is made of: `unet` are the arguments of diffusers' UNet2DModel."""

    model_type = "stillhouse-unet"

    def __init__(
        self, shape: tuple[int, ...] = (1, 8, 8), unet: dict[str, Any] | None = None, steps: int = 1, **others: Any
    ) -> None:
        self.shape, self.unet, self.steps = list(shape), unet or {}, steps
        super().__init__(**others)


class Unet(PreTrainedModel):
    """diffusers' UNet2DModel (Ronneberger et al. 2015; Ho et al. 2020) as a denoiser of pictures, as `Denoiser` is
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
