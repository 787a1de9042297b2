"""Pictures of which a part is hidden."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

from pipeline.core.methods import lazy
from pipeline.kinds.augmentation import Augmentation, Made, augmentation

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@augmentation(takes=("image",), keeps_signals=False)
def patches(*, share: Annotated[float, Field(gt=0, lt=1)] = 0.25, size: PositiveInt = 4) -> Augmentation:
    """A share of the square patches of each picture is hidden behind the mean of the picture.

    Paper: DeVries & Taylor 2017 (Cutout, arXiv 1708.04552); He et al. 2022 (MAE, arXiv 2111.06377) for patches.
    Differs: Cutout hides one square, of zeros.
    """

    def make(inputs: Mapping[str, torch.Tensor], draw: torch.Generator) -> Made:
        image = inputs["image"]
        high, wide = (-(-side // size) for side in image.shape[2:])
        hidden = round(share * high * wide)
        order_BP = torch.rand(len(image), high * wide, generator=draw).argsort(1).argsort(1)
        hidden_B1PQ = (order_BP < hidden).view(len(image), 1, high, wide)
        hidden_B1HW = hidden_B1PQ.repeat_interleave(size, 2).repeat_interleave(size, 3)
        hidden_B1HW = hidden_B1HW[:, :, : image.shape[2], : image.shape[3]]
        made = torch.where(hidden_B1HW, image.mean((2, 3), keepdim=True), image)
        return Made({**inputs, "image": made}, torch.arange(len(image)))

    return make
