"""Rows that stand several times in a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pipeline.core.methods import lazy
from pipeline.kinds.augmentation import Augmentation, Made, augmentation

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@augmentation(takes=("image",), keeps_signals=True)
def repeated(*, times: Annotated[int, Field(ge=2)] = 2) -> Augmentation:
    """Each row stands there so many times; what comes after it in `augment:` makes them differ.

    Paper: Chen et al. 2020 (SimCLR, arXiv 2002.05709), two views of a picture.
    Differs: nothing.
    """

    def make(inputs: Mapping[str, torch.Tensor], draw: torch.Generator) -> Made:
        copies = {name: torch.cat([value] * times) for name, value in inputs.items()}
        return Made(copies, torch.arange(len(inputs["image"])).repeat(times))

    return make
