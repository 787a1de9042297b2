"""Verifiers that compare numbers."""

from __future__ import annotations

from pipeline.kinds.verifier import Verifier, verifier
from pipeline.text.answers import last_number


@verifier()
def last() -> Verifier:
    """The last number in a text, compared by value: `1,200` is `1200.0`.

    Paper: none; the usual extraction for GSM8K (Cobbe et al. 2021).
    Differs: decimals are compared exactly, not as floating-point numbers.
    """
    return _LastNumber()


class _LastNumber:
    def parse(self, text: str) -> str | None:
        return last_number(text)

    def equal(self, answer: str, reference: str) -> bool:
        right = last_number(reference)
        return right is not None and last_number(answer) == right
