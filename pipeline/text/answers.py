"""Normal forms of short answers: what people would call the same answer becomes the same text."""

from __future__ import annotations

import re
from decimal import Decimal

# A sign counts only where it cannot be a minus between two operands; a comma only between groups of three digits.
NUMBER = re.compile(
    r"(?:(?<![\w)\].])[-+\u2212])?(?:(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?",
    re.ASCII,
)


def last_number(text: str) -> str | None:
    """The last number of a text in plain decimal digits: `$1,234.50` gives `1234.5`, `07.0` gives `7`."""
    found = NUMBER.findall(text)
    if not found:
        return None
    digits = format(Decimal(found[-1].replace(",", "").replace("\u2212", "-")), "f")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return "0" if digits in ("-0", "") else digits


def plain_words(text: str) -> str:
    """A text without case, runs of white space, and punctuation at its end."""
    return " ".join(text.casefold().split()).rstrip(".,;:!? ")
