"""What a builder is: from two model folders, a base and a donor, to the folder of a third."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pipeline.core.methods import marker
from pipeline.kinds.origin import Card


class Builder(Protocol):
    """Makes a model of models, which may be one model twice."""

    def __call__(self, base: Path, donor: Path, out: Path, seed: int, /) -> Card:
        """Fill an empty folder with what begins as `base` and has something of `donor`; returns the model's card."""
        ...


# Traits: `bases` and `donors`, the networks that either may be; no donors: it takes nothing of one. `keeps`: the
# model reads a text as the base does, and what is before its heads is the base's. `heads`, from the arguments to the
# names of the heads that it gets beside its own. `random`: whether the seed matters.
builder = marker("builder")
