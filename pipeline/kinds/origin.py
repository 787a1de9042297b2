"""What an origin is: a function from an empty folder to the card of the model it has put there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pipeline.core.methods import marker

Card = dict[str, str]
# What runs a model folder in this process.
Engine = Literal["transformers", "vllm"]
BACKENDS: dict[Engine, str] = {"transformers": "local.model", "vllm": "vllm.engine"}

Origin = Callable[[Path], Card]
Dtype = Literal["float32", "bfloat16"]

origin = marker("origin")
