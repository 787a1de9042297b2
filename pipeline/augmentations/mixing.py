"""Rows that are made of several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveFloat

from pipeline.core.methods import lazy
from pipeline.kinds.augmentation import Augmentation, Made, augmentation

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@augmentation(takes=("image",), keeps_signals=False)
def mixup(*, alpha: PositiveFloat = 1.0, share: Annotated[float, Field(gt=0, le=1)] = 1.0) -> Augmentation:
    """A share of the pictures is mixed with another of the micro-batch, pixel by pixel; how much of it, is drawn from
    Beta(alpha, alpha) for each.

    Paper: Zhang et al. 2018 (mixup, arXiv 1710.09412); Choi et al. 2023 (arXiv 2211.03946) for a small share.
    Differs: the outcome is one of both, the more often the more of it there is, which in the mean over draws is their
    loss. The amount is each picture's own, as far as it is another's.
    """

    def make(inputs: Mapping[str, torch.Tensor], draw: torch.Generator) -> Made:
        image, rows = inputs["image"], len(inputs["image"])
        other_B = torch.randperm(rows, generator=draw)
        # A Beta of equal halves, by two Gammas.
        gammas_2B = torch._standard_gamma(torch.full((2, rows), alpha), generator=draw)
        part_B = gammas_2B[0] / gammas_2B.sum(0).clamp_min(1e-30)
        part_B = torch.where(torch.rand(rows, generator=draw) < share, part_B, 1.0)
        mixed = torch.lerp(image[other_B], image, part_B[:, None, None, None].to(image))
        own_B = torch.rand(rows, generator=draw) < part_B
        return Made({**inputs, "image": mixed}, torch.where(own_B, torch.arange(rows), other_B))

    return make
