"""Clouds of points of which a part is there: several of each, turned and shaken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, NonNegativeFloat

from pipeline.core.methods import lazy
from pipeline.kinds.augmentation import Augmentation, Made, augmentation

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

POINTS, THERE = "points", "there"


@augmentation(takes=(POINTS,), keeps_signals=False)
def clouds(
    *,
    times: Annotated[int, Field(ge=1)] = 2,
    least: Annotated[float, Field(gt=0, le=1)] = 0.4,
    turned: bool = True,
    noise: NonNegativeFloat = 0.02,
) -> Augmentation:
    """So many crops of each cloud: of its points the share, between `least` and all, that is nearest to one of them
    (large ones are what others call global, small ones local), turned about the third axis, with `noise` on each.

    Paper: Caron et al. 2020 (SwAV, arXiv 2006.09882), crops of several sizes; Xie et al. 2020 (PointContrast, arXiv
    2007.10985), views of a cloud.
    Differs: one range of sizes for all crops.
    """

    def make(inputs: Mapping[str, torch.Tensor], draw: torch.Generator) -> Made:
        row_R = torch.arange(len(inputs[POINTS])).repeat(times)
        points, there = inputs[POINTS][row_R], inputs[THERE][row_R]
        size_R = there.sum(1)
        middle_R = (torch.rand(len(row_R), generator=draw) * size_R).long()
        far_RP = (points - points[torch.arange(len(row_R)), middle_R][:, None]).norm(dim=2)
        rank_RP = far_RP.masked_fill(~there, torch.inf).argsort(1).argsort(1)
        share_R = least + (1 - least) * torch.rand(len(row_R), generator=draw)
        kept = rank_RP < (share_R * size_R).ceil()[:, None]
        if turned and points.shape[2] > 1:
            angle_R = 2 * math.pi * torch.rand(len(row_R), generator=draw)
            cos, sin = angle_R.cos()[:, None], angle_R.sin()[:, None]
            x, y = points[:, :, 0], points[:, :, 1]
            points = torch.cat([torch.stack([cos * x - sin * y, sin * x + cos * y], 2), points[:, :, 2:]], 2)
        points = points + noise * torch.randn(points.shape, generator=draw)
        others = {name: value[row_R] for name, value in inputs.items() if name not in (POINTS, THERE)}
        return Made({**others, POINTS: points, THERE: kept & there}, row_R)

    return make
