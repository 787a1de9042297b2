"""What of a network is used in a step: a part of it, another one every time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

from pipeline.core.methods import lazy
from pipeline.kinds.augmentation import Augmentation, Made, augmentation
from pipeline.kinds.network import SHAPE

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

Some = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


@augmentation(takes=(SHAPE,), keeps_signals=True)
def sampled(*, layers: Some = (1, 2), widths: Some = (8, 16)) -> Augmentation:
    """A network learns as many: in every micro-batch so many of its last layers are used, and so many numbers within
    each, one of the `layers` and one of the `widths` by chance. `parts.extracted` cuts one of them out.

    A live teacher is cut alike, so let a `probe:` say what it says.

    Paper: Xu et al. 2022 (AutoDistil, NeurIPS), a sub-network for every step.
    Differs: layers and their inner width alone are sampled; one space of networks in place of three.
    """

    def make(inputs: Mapping[str, torch.Tensor], draw: torch.Generator) -> Made:
        chosen = [some[int(torch.randint(len(some), (), generator=draw))] for some in (layers, widths)]
        rows = len(next(iter(inputs.values())))
        return Made({**inputs, SHAPE: torch.tensor([chosen]).expand(rows, -1)}, torch.arange(rows))

    return make
