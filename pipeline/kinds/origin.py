"""What an origin is: a function from an empty folder to the card of the model it has put there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

from pipeline.core.methods import marker

Card = dict[str, Any]
# What runs a model folder in this process.
Engine = Literal["transformers", "vllm"]
BACKENDS: dict[Engine, str] = {"transformers": "local.model", "vllm": "vllm.engine"}

Dtype = Literal["float32", "bfloat16"]
# Four bits a weight, of a model that is only looked at (`model/load.py`).
FOUR_BITS = "nf4"


class Origin(Protocol):
    """Puts a model into an empty folder."""

    def __call__(self, out: Path, /) -> Card:
        """Fill the folder; returns the model's card."""
        ...


# Traits: `gives`, what the card's backend gives; `backend` and `network`, the methods that the card or the model's form
# names, one or several that it may be, without which any may be. Each is as it is or a function of the arguments.
# `files`, from the arguments to the user's own files that are read: a model folder with `mend`, what to do where it is
# broken. `packages` that are needed. `served`: it has an address in `run.endpoints`. `fetched`: the argument that names
# what the hub's cache must hold.
origin = marker("origin")
