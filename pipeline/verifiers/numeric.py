"""Verifiers that compare numbers."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

from pipeline.kinds.verifier import Verifier, verifier
from pipeline.text import numbers
from pipeline.text.marks import given_answer
from pipeline.text.numbers import Number, Sign

# A short answer as `str(Number)` writes it.
PLAIN = re.compile(r"-?\d+(?:(?P<point>\.\d+)|(?P<over>/[1-9]\d*))?(?P<percent>%)?", re.ASCII)


@verifier()
def last(*, decimal: Sign = "point") -> Verifier:
    """The last number in a text, compared by its exact value: `1,200`, `1{,}200` and `1.2 × 10^3` are `1200.0`.

    The forms are those of `docs/verifiers.md`. What is not one number (a range, a time, `3x`) is unread, never cut, and
    a reference is one number with its unit, or ends with `#### 42` or `\\boxed{42}`. A percentage is its value and its
    figure: `50%` is right for `0.5` and for `50`. `decimal` says what `1,234` and `1.234` are: `point`, `comma`, or
    `either`, which leaves both unread. Where the rest of a text writes decimals the other way, both are unread too.

    Paper: none; the usual extraction for GSM8K (Cobbe et al. 2021).
    Differs: numbers are compared exactly, not as floating-point numbers, and in all forms that people write.
    """
    return _LastNumber(decimal)


class _LastNumber:
    def __init__(self, decimal: Sign) -> None:
        self.decimal = decimal

    def parse(self, text: str) -> str | None:
        return numbers.last_plain(text, self.decimal)

    def read(self, text: str) -> str | None:
        number = numbers.whole_number(given_answer(text), self.decimal)
        return None if number is None else str(number)

    def equal(self, answer: str, reference: str) -> bool:
        given, right = (PLAIN.fullmatch(text) for text in (answer, reference))
        if given and right and not (given["over"] or given["percent"] or right["over"] or right["percent"]):
            return answer == reference or Decimal(answer) == Decimal(reference)
        one, other = self._value(answer, given), self._value(reference, right)
        return one is not None and other is not None and one.same(other)

    def _value(self, text: str, plain: re.Match[str] | None) -> Number | None:
        """The value of a short answer, which is in plain form, or of a reference as it was given."""
        if plain and len(text) < numbers.LONGEST:
            percent = plain["percent"] is not None
            return Number(Fraction(text.rstrip("%")) / (100 if percent else 1), percent)
        return numbers.whole_number(given_answer(text), self.decimal)
