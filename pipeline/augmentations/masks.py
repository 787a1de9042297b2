"""Rows of which a part is hidden."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

from pipeline.core.methods import lazy
from pipeline.errors import Refused
from pipeline.kinds.augmentation import Augmentation, Made, augmentation
from pipeline.kinds.network import HIDDEN

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

Share = Annotated[float, Field(gt=0, lt=1)]


@augmentation(takes=("image",), keeps_signals=False)
def patches(*, share: Share = 0.25, size: PositiveInt = 4) -> Augmentation:
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


@augmentation(takes=(HIDDEN,), keeps_signals=True)
def places(*, share: Share = 0.75, run: PositiveInt = 1) -> Augmentation:
    """A share of each row's places is hidden; with `run` so many in a row are hidden together, or none of them.

    Signals hold: a teacher that said them has seen all places. A live teacher looks past what is hidden here.

    Paper: Devlin et al. 2019 (BERT, arXiv 1810.04805); He et al. 2022 (MAE, arXiv 2111.06377), a share of 0.75.
    Differs: no place that is hidden shows what stands there, or another token, as a fifth of BERT's do.
    """

    def make(inputs: Mapping[str, torch.Tensor], draw: torch.Generator) -> Made:
        [hidden] = _hidden(inputs[HIDDEN], share, run, 1, draw)
        return Made({**inputs, HIDDEN: hidden}, torch.arange(len(hidden)))

    return make


@augmentation(takes=(HIDDEN,), keeps_signals=True)
def disjoint(*, share: Share = 0.75, copies: Annotated[int, Field(ge=2)] = 2, run: PositiveInt = 1) -> Augmentation:
    """Each row stands there so many times; of each copy that share of the places is hidden, and no place is seen in two
    of them.

    Paper: Ma et al. 2022 (DMJD, disjoint masking, arXiv 2301.00230).
    Differs: nothing.
    """
    if copies * (1 - share) > 1:
        raise Refused(f"masks.disjoint: {copies} copies that each show {1 - share:g} of the places share some of them")

    def make(inputs: Mapping[str, torch.Tensor], draw: torch.Generator) -> Made:
        hidden = torch.cat(_hidden(inputs[HIDDEN], share, run, copies, draw))
        made = {name: torch.cat([value] * copies) for name, value in inputs.items()}
        return Made({**made, HIDDEN: hidden}, torch.arange(len(inputs[HIDDEN])).repeat(copies))

    return make


def _hidden(places_BP: torch.Tensor, share: float, run: int, copies: int, draw: torch.Generator) -> list[torch.Tensor]:
    """Which places are hidden, as they come in runs, for each of some copies that show others."""
    there_BP, width = places_BP >= 0, places_BP.shape[1]
    there_BG = torch.nn.functional.pad(there_BP, [0, -width % run]).unflatten(1, (-1, run)).any(2)
    drawn_BG = torch.rand(there_BG.shape, generator=draw).masked_fill(~there_BG, 2)
    order_BG, count_B1 = drawn_BG.argsort(1).argsort(1), there_BG.sum(1, keepdim=True)
    seen_B1 = count_B1 - (share * count_B1).round().long()
    made = []
    for copy in range(copies):
        shown_BG = (order_BG >= copy * seen_B1) & (order_BG < (copy + 1) * seen_B1)
        hidden_BP = ~shown_BG.repeat_interleave(run, 1)[:, :width]
        made.append(torch.where(there_BP, hidden_BP.long(), -1))
    return made
