"""What a reader is: from a model's reading of an answer to the columns of its score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pipeline.core.methods import Method, marker
from pipeline.kinds.backend import Reading, Want


class Reader(Protocol):
    """Gives the columns of one answer's score: `score`, `quantities`, and `detail` or `vector` if it has them."""

    def __call__(self, reading: Reading, /) -> dict[str, Any]:
        """The columns of one row."""
        ...


def want_of(method: Method, arguments: Mapping[str, Any]) -> Want | None:
    """What a reader with these arguments asks of the model that reads; None if it asks nothing of it."""
    want = method.traits["want"]
    return want(arguments) if callable(want) else want


# Traits: `want`, what is asked of the reading model: a `Want`, or a function from a reader's arguments to one. Where it
# is None the model is not asked, and a reading holds as many log-probabilities as there are tokens, none of them a
# number; `means`, what the report takes it for: `nll`, with the quantities `nll_sum` and `tokens`.
reader = marker("reader")
