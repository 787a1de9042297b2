"""What a network is given and gives: how one kind of model is fed, looked at, asked and kept.

A model folder names its network in `model.json`; nobody writes it in `params.yaml`. N places of a batch (a loss token,
a text to be named), B examples, D the width of the states, V outcomes at a place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from pipeline.core.methods import lazy, marker
from pipeline.tables.ids import Cell

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

network = marker("network")
# What `collate` calls the links of its places, [2, E]: row 0 learns from row 1.
LINKS = "links_2E"
# And what says of each of a row's places whether it is hidden, [B, P]: 1, or 0 if it is seen, -1 where a row has no
# more places. What stands at a place that is seen is not to be found: it is unknown.
HIDDEN = "hidden"
# What says how much of the network is used, [B, 2], the same in all rows: how many layers, how wide each is within.
SHAPE = "shape"


@dataclass(frozen=True)
class Seen:
    """What a model shows of a batch at its places, in the order of the batch.

    `states_ND` is what each head is given; a head maps rows of it to logits [., V]. `features` are the wanted taps,
    [N, ...].
    """

    states_ND: torch.Tensor
    heads: Mapping[str, torch.nn.Module]
    features: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def still(self) -> Seen:
        """The same, of which a gradient reaches the heads alone."""
        return Seen(self.states_ND.detach(), self.heads, {name: tap.detach() for name, tap in self.features.items()})


@dataclass(frozen=True)
class Packed:
    """An example as a student reads it: what stands at its places, which places are learnt, and what else it is given
    (columns `token_ids`, `spans`, `inputs` of `examples`). `length` is how many tokens it reads, where that is not the
    number of places. `told` is what whoever packs should say of it, once."""

    token_ids: Sequence[int]
    spans: Sequence[tuple[int, int]]
    inputs: list[dict[str, Any]] | None = None
    length: int | None = None
    told: str = ""


class Network(Protocol):
    """One kind of model. Everything else of training is the trainer's.

    One with an attribute `apart` that is true has one place a row, and what it collates of a row hangs on no other, so
    that a small table is collated once.

    One that `gives` `look` and `teacher_look` has a method more, `put(output, inputs, make)`: a module's output, with
    what `make` makes of its states [N, ...] at the places in their place.
    """

    def pack(self, form: Path, messages: Sequence[dict[str, str]], answer: str, inputs: Cell | None = None) -> Packed:
        """A conversation, its answer and the arrays that it is about as an example; `form` is the folder `tokenizer/`
        of a model. What it cannot be shown it refuses, with words that follow the name of a row.

        With the trait `thoughts` it takes `reasoning`, `train_on` and `answers` too, as `Chat.example` does.
        """
        ...

    def load(self, folder: Path, dtype: str) -> torch.nn.Module:
        """The model of a folder, in evaluation mode."""
        ...

    def collate(self, rows: pa.Table) -> dict[str, torch.Tensor]:
        """What `look` needs of rows of `examples` or `signals`; the places come in the order of `places`."""
        ...

    def look(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], taps: Sequence[str]) -> Seen:
        """The states at the places of a collated batch; an unknown tap is refused with those that there are."""
        ...

    def width(self, model: torch.nn.Module) -> int:
        """How many outcomes a place has."""
        ...

    def save(self, model: torch.nn.Module, out: Path) -> None:
        """Write the weights and the configuration into a folder."""
        ...


class Played(Network, Protocol):
    """A network that a play may call: what it makes is no outcome but an array, such as a sample of each noise, which
    is called `made`."""

    made: str

    def calls(self, model: torch.nn.Module) -> Callable[..., torch.Tensor]:
        """The model as a function, such as from noised samples [N, ...] and their times [N] to samples."""
        ...

    def draws(self, inputs: Mapping[str, torch.Tensor], draw: torch.Generator) -> dict[str, torch.Tensor]:
        """What a step plays with at the places of a collated batch, [N, ...] each; all chance is drawn from `draw`."""
        ...

    def makes(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What the model answers at the places of a batch, [N, ...]."""
        ...
