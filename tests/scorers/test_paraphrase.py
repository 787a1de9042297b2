"""Pairs and components of answers that say the same, with values that can be worked out by hand."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from pipeline.kinds import verifier as verifiers
from pipeline.scorers.paraphrase import rouge_l
from pipeline.text.novelty import common_subsequence
from tests.scorers.scored import score, scored, votes


def said(*texts: tuple[str | None, str | None], verifier: str | None = "numeric.last") -> dict[str, list]:
    rows = votes(*(answer for _, answer in texts), verifier=verifier)
    return {**rows, "content": pa.array([text for text, _ in texts], pa.string())}


def longest_common(a: list[str], b: list[str]) -> int:
    """By the table of all prefixes."""
    row = [0] * (len(b) + 1)
    for word in a:
        before = row
        row = [0]
        for j, other in enumerate(b):
            row.append(before[j] + 1 if word == other else max(before[j + 1], row[-1]))
    return row[-1]


def test_what_two_texts_share_is_their_longest_common_subsequence() -> None:
    draw = random.Random(0)
    for _ in range(300):
        a, b = ([draw.choice("abcd") for _ in range(draw.randint(0, 70))] for _ in "ab")
        assert common_subsequence(a, b) == longest_common(a, b) == common_subsequence(b, a)


@pytest.mark.parametrize(
    ("one", "other", "rouge"),
    [
        ("the cat sat", "the cat sat", 1),
        ("the cat sat", "The dog sat.", 2 / 3),
        ("a", "b", 0),
        ("", "a", 0),
        ("", "", 0),
    ],
)
def test_rouge_l(one: str, other: str, rouge: float) -> None:
    assert rouge_l(one, other) == pytest.approx(rouge)


SAME = ("We add them and get 7.", "7")
OTHER = ("In sum that makes 7!!!", "7")


@pytest.mark.parametrize(
    ("sibling", "partners"),
    [
        (OTHER, 1),
        (SAME, 0),  # in the same words
        (("In sum that makes 8!!!", "8"), 0),  # another answer
        (("In sum of 3 it makes 7", "7"), 0),  # another number
        (("It is 7", "7"), 0),  # too short
        (("In sum that makes in the end what is called 7", "7"), 0),  # too long
        (("In sum that makes 7!!!", None), 0),
        ((None, None), 0),
    ],
)
def test_a_pair_says_the_same_in_other_words(sibling: tuple[str | None, str | None], partners: int) -> None:
    assert score("paraphrase.pairs", said(SAME, sibling))[0][0] == partners


def test_the_partners_are_named_the_least_alike_first() -> None:
    rows = said(SAME, ("We add them so it makes 7.", "7.0"), OTHER)
    found = scored("paraphrase.pairs", rows)
    assert found["detail"].to_pylist()[0] == "r2 r1"
    quantities = dict(found["quantities"].to_pylist()[0])
    assert quantities["furthest"] == pytest.approx(2 / 11)
    assert quantities["nearest"] == pytest.approx(8 / 13)


def test_one_answer_has_no_partner_and_none_no_row() -> None:
    assert score("paraphrase.pairs", said(SAME))[0] == [0]
    assert score("paraphrase.pairs", said())[0] == []
    assert score("paraphrase.component", said(SAME))[0] == [1]
    assert score("paraphrase.component", said())[0] == []


def test_one_of_a_component_is_kept() -> None:
    scores, quantities = score("paraphrase.component", said(SAME, ("8", "8"), OTHER, (None, None), ("8.0", "8.0")))
    assert scores == [1, 1, 0, None, 0]
    assert [q["component"] for q in quantities] == [0, 1, 0, 0, 1]
    assert [q["size"] for q in quantities] == [2, 2, 2, 0, 2]


def test_without_verifier_equal_words_are_equal() -> None:
    assert score("paraphrase.component", said(("Yes.", "Yes."), ("yes", "yes"), ("no", "no"), verifier=None))[0] == [
        1,
        0,
        1,
    ]


def test_a_component_is_joined_by_way_of_others_and_the_middle_stands_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Near:
        def equal(self, answer: str, reference: str) -> bool:
            return abs(ord(answer) - ord(reference)) <= 1

    monkeypatch.setattr(verifiers, "verifier_named", lambda name: Near())
    verifiers.same.cache_clear()
    scores, quantities = score("paraphrase.component", said(*((letter, letter) for letter in "cdeabx")))
    verifiers.same.cache_clear()
    # a b c d e are one; b, c and d have two equals each, and c comes first.
    assert scores == [1, 0, 0, 0, 0, 1]
    assert [q["equals"] for q in quantities] == [2, 2, 1, 1, 2, 0]
    assert [q["size"] for q in quantities] == [5, 5, 5, 5, 5, 1]
