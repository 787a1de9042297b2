"""Models of clouds of points, and of scenes, in which each is seen with those around it.

Imports torch: whoever only names a method must not import it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class CloudConfig(PretrainedConfig):
    """What a `Cloud` is made of."""

    model_type = "stillhouse-cloud"

    def __init__(self, numbers: int = 3, widths: tuple[int, ...] = (32, 64), **others: Any) -> None:
        self.numbers, self.widths = numbers, list(widths)
        super().__init__(**others)


class Cloud(PreTrainedModel):
    """A small PointNet (Qi et al. 2017, arXiv 1612.00593): layers over every point by itself, and the largest of what
    they say over a cloud, whose points may come in any order."""

    config_class = CloudConfig
    main_input_name = "x"

    def __init__(self, config: CloudConfig) -> None:
        super().__init__(config)
        widths = [config.numbers, *config.widths]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.classifier = nn.Linear(widths[-1], config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as torch makes them."""

    def forward(self, x: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] of clouds x [B, P, F], of which `there` [B, P] are points and the rest is none."""
        seen = x
        for layer in self.layers:
            seen = nn.functional.relu(layer(seen))
        return self.classifier(seen.masked_fill(~there[:, :, None], 0).amax(1))


class SurroundingsConfig(PretrainedConfig):
    """What a `Surroundings` is made of: every point sees so many `neighbours`, itself among them."""

    model_type = "stillhouse-surroundings"

    def __init__(
        self, numbers: int = 3, widths: tuple[int, ...] = (32, 32), neighbours: int = 8, **others: Any
    ) -> None:
        self.numbers, self.widths, self.neighbours = numbers, list(widths), neighbours
        super().__init__(**others)


class Around(nn.Module):
    """The largest, over a point's neighbours, of a layer over the point's state and how theirs differs from it."""

    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(2 * given, width)

    def forward(self, seen: torch.Tensor, near: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """[B, P, width] of states [B, P, D], the numbers of neighbours [B, P, K] and whether there is one [B, P, K]."""
        theirs = seen.gather(1, near.flatten(1)[:, :, None].expand(-1, -1, seen.shape[2])).unflatten(1, near.shape[1:])
        own = seen[:, :, None].expand_as(theirs)
        said = nn.functional.relu(self.layer(torch.cat([own, theirs - own], 3)))
        return said.masked_fill(~there[..., None], 0).amax(2)


class Surroundings(PreTrainedModel):
    """A small DGCNN (Wang et al. 2019, arXiv 1801.07829) that names every point; neighbours are the nearest in space in
    all layers."""

    config_class = SurroundingsConfig
    main_input_name = "x"

    def __init__(self, config: SurroundingsConfig) -> None:
        super().__init__(config)
        widths = [config.numbers, *config.widths]
        self.layers = nn.ModuleList(Around(i, o) for i, o in pairwise(widths))
        self.classifier = nn.Linear(widths[-1], config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as torch makes them."""

    def forward(self, x: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """Logits [B, P, V] of points x [B, P, F], of which `there` [B, P] are points and the rest is none."""
        apart = torch.cdist(x.float(), x.float()).masked_fill(~there[:, None], torch.inf)
        distance, near = apart.topk(min(self.config.neighbours, x.shape[1]), largest=False)
        seen = x
        for layer in self.layers:
            seen = layer(seen, near, distance.isfinite())
        return self.classifier(seen)
