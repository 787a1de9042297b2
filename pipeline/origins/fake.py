"""No model at all, and answers all the same: to try a graph before a model, a key or a GPU is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat

from pipeline.kinds.origin import origin

Share = Annotated[float, Field(ge=0, le=1)]


@origin(gives=("generate",), backend="fake.words", network=())
def words(*, wrong: Share = 0.25, delay_s: NonNegativeFloat = 0.0) -> Callable[[Path], dict[str, Any]]:
    """A fake teacher (`fake.words`): answers made of the prompt's words, and the results of its sums.

    `wrong` is the share of sums with a wrong result; `delay_s` is how long each answer takes, to see progress.

    Paper: none; it is for trying a graph, and what is trained on it learns nothing.
    Differs: nothing.
    """
    return lambda out: {"backend": "fake.words", "model_id": "fake.words", "wrong": wrong, "delay_s": delay_s}
