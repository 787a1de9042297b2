"""Models of pictures.

Imports torch: whoever only names a method must not import it.
"""

from __future__ import annotations

from itertools import pairwise
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


class PatchesConfig(transformers.ViTConfig):
    """What a `Patches` is made of."""

    model_type = "stillhouse-patches"


class Patches(PreTrainedModel):
    """A ViT over the patches of a picture, of which some are hidden behind a learnt vector; the head is given the
    states of its class token and of all patches."""

    config_class = PatchesConfig
    base_model_prefix = "vit"
    main_input_name = "pixel_values"

    def __init__(self, config: PatchesConfig) -> None:
        super().__init__(config)
        self.vit = transformers.ViTModel(config, add_pooling_layer=False, use_mask_token=True)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as their own classes make them."""

    def forward(self, pixel_values: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """[B, 1 + P, V] of pictures [B, C, H, W] and which of their patches are hidden [B, P]."""
        return self.classifier(self.vit(pixel_values, bool_masked_pos=hidden == 1).last_hidden_state)


class DescribedConfig(PretrainedConfig):
    """What a `Described` says of a patch: its `pixels`, or its gradients by direction (`hog`), of which `bins`."""

    model_type = "stillhouse-described"

    def __init__(self, kind: str = "hog", patch_size: int = 4, bins: int = 9, **others: Any) -> None:
        self.kind, self.patch_size, self.bins = kind, patch_size, bins
        super().__init__(**others)


class Described(PreTrainedModel):
    """What a formula says of each patch of a picture, whether it is hidden or not, brought to mean 0 and variance 1:
    a teacher without weights, whose head names nothing."""

    config_class = DescribedConfig
    main_input_name = "pixel_values"

    def __init__(self, config: DescribedConfig) -> None:
        super().__init__(config)
        numbers = config.bins if config.kind == "hog" else config.patch_size**2
        self.classifier = nn.Linear(config.num_channels * numbers, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing is learnt."""
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, pixel_values: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """[B, 1 + P, V] of pictures [B, C, H, W]."""
        told_BKHW = self._gradients(pixel_values) if self.config.kind == "hog" else pixel_values
        side = self.config.patch_size
        if self.config.kind == "hog":
            told_BPD = nn.functional.avg_pool2d(told_BKHW, side).flatten(2).transpose(1, 2)
        else:
            told_BPD = nn.functional.unfold(told_BKHW, side, stride=side).transpose(1, 2)
        told_BPD = nn.functional.layer_norm(told_BPD, told_BPD.shape[2:])
        return self.classifier(torch.cat([torch.zeros_like(told_BPD[:, :1]), told_BPD], 1))

    def _gradients(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """How steep each channel is at each pixel, in the bin of its direction, which has no sign: [B, C * bins, H,
        W]."""
        wide = nn.functional.pad(pixels_BCHW, [1] * 4, mode="replicate")
        down, right = wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1], wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]
        turn = torch.atan2(down, right) / torch.pi % 1
        at = (turn * self.config.bins).long().clamp_max(self.config.bins - 1)
        steep = nn.functional.one_hot(at, self.config.bins) * torch.hypot(down, right)[..., None]
        return steep.permute(0, 1, 4, 2, 3).flatten(1, 2)


class FusedConfig(PretrainedConfig):
    """What a `Fused` is made of: the configurations of two classifiers of pictures."""

    model_type = "stillhouse-fused"

    def __init__(self, parts: tuple[dict[str, Any], ...] = (), **others: Any) -> None:
        self.parts = list(parts)
        super().__init__(**others)


class Fused(PreTrainedModel):
    """Two classifiers of pictures without their heads, of which one looks at the left half of a picture and one at the
    right half; the head is given the states of both."""

    config_class = FusedConfig
    main_input_name = "pixel_values"

    def __init__(self, config: FusedConfig) -> None:
        super().__init__(config)
        self.parts, width = nn.ModuleList(), 0
        for told in config.parts:
            made: Any = (
                Conv(ConvConfig(**told))
                if told["model_type"] == ConvConfig.model_type
                else transformers.AutoModelForImageClassification.from_config(transformers.AutoConfig.for_model(**told))
            )
            width += made.classifier.in_features
            made.classifier = nn.Identity()
            self.parts.append(made)
        self.classifier = nn.Linear(width, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as their own classes make them."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] of pictures [B, C, H, W]."""
        said = [part(half) for part, half in zip(self.parts, pixel_values.chunk(2, 3), strict=True)]
        return self.classifier(torch.cat([getattr(each, "logits", each) for each in said], 1))
