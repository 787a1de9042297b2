"""The last number of a text is the same whether it can be seen at once or not."""

from __future__ import annotations

import random

import pytest

from pipeline.text import numbers

PIECES = [*"0123456789" * 3, *".,-$ x=%/ab\n*:!?#()+e^'_\u2019", "**", "\\boxed{", "}", " to ", " or ", " the ", "####",
          "answer is ", "million", " and "]  # fmt: skip


def told(text: str) -> str | None:
    """The plain form by the one long way."""
    number = numbers.last_number(text)
    return None if number is None else str(number)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("42", "42"),
        ("007", "7"),
        ("so it is 1,200.50", "1200.5"),
        ("**Answer:** 9.7", "9.7"),
        ("2** 9", None),
        (".4** 9.7", None),
        ("from 3 to 5", None),
        ("no number", None),
        ("9" * 1200, None),
    ],
)
def test_a_text_has_the_number_that_it_ends_with(text: str, plain: str | None) -> None:
    assert numbers.last_plain(text) == told(text) == plain


@pytest.mark.parametrize("seed", range(4))
def test_what_is_seen_at_once_is_what_the_long_way_finds(seed: int) -> None:
    draw = random.Random(seed)
    texts = ["".join(draw.choices(PIECES, k=draw.randrange(1, 14))) for _ in range(4000)]
    assert [(text, numbers.last_plain(text)) for text in texts] == [(text, told(text)) for text in texts]
    assert sum(numbers._at_once(text, "point") is not None for text in texts) > 200
