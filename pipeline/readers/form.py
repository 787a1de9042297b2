"""Readers of a model's form alone: its tokenizer and template. The model is not loaded."""

from __future__ import annotations

from typing import Any

from pipeline.kinds.backend import Reading
from pipeline.kinds.reader import Reader, reader


@reader(want=None)
def tokens() -> Reader:
    """How many tokens of an answer, without its thought, a student of this form is trained on, its end token included.

    Paper: none; what a budget of tokens has to count for arms of equal cost (`select: {tokens: <name>.score}`).
    Differs: nothing.
    """

    def read(reading: Reading) -> dict[str, Any]:
        return {"score": float(len(reading.target_logprob)), "quantities": []}

    return read
