"""What an augmentation is given and gives: a micro-batch as its network looks at it, and another in its place.

B rows of the micro-batch, R of what is made of it. A row has one place, or several, of which some may be hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pipeline.core.methods import lazy, marker

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@dataclass(frozen=True)
class Made:
    """What is looked at instead: `inputs` by name, [R, ...], and row_R, the row of the micro-batch whose outcome,
    weight and teacher each is to have; a row may stand there several times, or not at all."""

    inputs: Mapping[str, torch.Tensor]
    row_R: torch.Tensor


class Augmentation(Protocol):
    """Makes another micro-batch of one. A live teacher looks at the same one."""

    def __call__(self, inputs: Mapping[str, torch.Tensor], draw: torch.Generator, /) -> Made:
        """`inputs` are what the network's `collate` gives, [B, ...]; all chance is drawn from `draw`."""
        ...


# Traits: `takes`, the inputs that it changes, which the network has to take; `keeps_signals`, that what a teacher said
# of the rows holds for what is made of them; `learns`, that it has a `module`, which learns in the turns that train it
# by the function's name, and through which every look of such a turn has a gradient.
augmentation = marker("augmentation")
