"""Figures, names and texts for people."""

from __future__ import annotations

import pytest

from pipeline.display import duration, listed, nearest


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.034, "0.034 s"),
        (4.21, "4.2 s"),
        (99.4, "99 s"),
        (99.6, "1 min 40 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_seconds_are_said_in_the_unit_of_their_size(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_nearest_name_is_a_question() -> None:
    assert nearest("agrement", {"agreement", "entropy"}) == "; did you mean agreement?"
    assert nearest("zzz", ["agreement"]) == ""


def test_of_many_words_the_first_are_listed() -> None:
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
