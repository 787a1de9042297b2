"""The lengths of a thought and of an answer."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tests.scorers.scored import score

ROWS = {
    "content": pa.array(["It is 7.", "", None, "7"], pa.string()),
    "reasoning": pa.array(["so we  add\nthem", None, None, ""], pa.string()),
    "error": pa.array([None, None, "no route", None], pa.string()),
}


@pytest.mark.parametrize(
    ("of", "words"), [("reasoning", [4, None, None, 0]), ("answer", [3, 0, None, 1]), ("both", [7, 0, None, 1])]
)
def test_length_counts_words(of: str, words: list) -> None:
    scores, quantities = score("heuristic.length", ROWS, of=of)
    assert scores == words
    assert [q["reasoning_words"] for q in quantities] == [4, 0, 0, 0]
    assert [q["answer_words"] for q in quantities] == [3, 0, 0, 1]
