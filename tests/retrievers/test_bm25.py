"""BM25 by its formula, and what has no words."""

from __future__ import annotations

import math

import pytest

from pipeline.retrievers.bm25 import best

TEXTS = ["Carry the one, carry.", "Sort by the first letter", "one"]


def test_scores_are_those_of_the_formula() -> None:
    k1, b, lengths = 1.2, 0.75, [4, 5, 1]

    def part(text: int, times: int, holding: int) -> float:
        norm = 1 - b + b * lengths[text] / (sum(lengths) / 3)
        return math.log(1 + (3 - holding + 0.5) / (holding + 0.5)) * times / (times + k1 * norm)

    found = best()(TEXTS, ["CARRY one", "one one", "none of these"], 3)
    expected = [
        [part(0, 2, 1) + part(0, 1, 2), part(2, 1, 2), 0],
        [2 * part(2, 1, 2), 2 * part(0, 1, 2), 0],
        [0, 0, 0],
    ]
    assert found.at.tolist() == [[0, 2, 1], [2, 0, 1], [0, 1, 2]]
    assert found.scores.tolist() == [pytest.approx(row, abs=1e-9) for row in expected]


def test_long_texts_are_not_favoured_unless_b_is_0() -> None:
    texts = ["carry " + "and so on " * 20, "carry"]
    assert best()(texts, ["carry"], 1).at.tolist() == [[1]]
    assert best(b=0)(texts, ["carry"], 1).at.tolist() == [[0]]


def test_only_the_first_words_of_a_query_count() -> None:
    assert best(words=2)(TEXTS, ["no word sort"], 1).scores.tolist() == [[0]]
    assert best(words=3)(TEXTS, ["no word sort"], 1).at.tolist() == [[1]]


@pytest.mark.parametrize("texts", [["", "?!"], ["", "carry"], ["?!", "", "\u8fdb\u4f4d"]])
def test_texts_without_words_are_found_by_nothing(texts: list[str]) -> None:
    found = best()(texts, ["", "?!", "zzz"], 5)
    assert found.scores.tolist() == [[0] * len(texts)] * 3
    assert found.at.tolist() == [list(range(len(texts)))] * 3


def test_a_script_without_spaces_is_read_by_its_signs() -> None:
    assert best()([*TEXTS, "\u8fdb\u4f4d\u52a0\u6cd5"], ["\u52a0\u6cd5"], 1).at.tolist() == [[3]]
