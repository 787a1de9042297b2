"""What a reader is: from a model's reading of an answer to the columns of its score."""

from __future__ import annotations

from typing import Any, Protocol

from pipeline.core.methods import marker
from pipeline.kinds.backend import Reading


class Reader(Protocol):
    """Gives the columns of one answer's score: `score`, `quantities`, and `detail` or `vector` if it has them."""

    def __call__(self, reading: Reading, /) -> dict[str, Any]:
        """The columns of one row."""
        ...


# Traits: `needs`, what the reading model must give: where it is nothing, the model is not asked, and a reading holds as
# many log-probabilities as there are tokens, none of them a number; `embedding`, whether its states are wanted;
# `means`, what the report takes it for: `nll`, with the quantities `nll_sum` and `tokens`.
reader = marker("reader")
