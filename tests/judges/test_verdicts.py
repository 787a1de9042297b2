"""Scores of verdicts that are small enough to count by hand."""

from __future__ import annotations

import pytest

from pipeline.core.methods import find
from pipeline.kinds.judge import Verdict

Said = list[tuple[str, list[str | None]]]
Row = tuple[float | None, dict[str, float]]


def scored(name: str, said: Said, **arguments: object) -> dict[str, Row]:
    """What a judge makes of questions about `a`, `ab`, `ba`, ..., a letter an answer."""
    method = find("judge", f"verdicts.{name}")
    judge = method.factory(**method.arguments.model_validate(arguments).model_dump())
    rows = judge([Verdict(tuple(about), tuple(texts)) for about, texts in said])
    return {answer: (row["score"], dict(row["quantities"])) for answer, row in rows.items()}


POINTS = [
    (["3"], 3.0, (1, 3, 0)),
    (["1", "5", "5"], 11 / 3, (3, 11, 0)),
    (["4", None], 4.0, (1, 4, 1)),
    (["4.5", "1/2", "0.8"], 4.5, (1, 4.5, 2)),
    (["0", "6", "-1", "99"], None, (0, 0, 4)),
    ([None, "", "I cannot judge that", "4 out of 5", "3-4"], None, (0, 0, 5)),
]


@pytest.mark.parametrize(("said", "score", "counted"), POINTS)
def test_points_have_a_mean_and_what_is_none_is_unread(said: list, score: float | None, counted: tuple) -> None:
    assert scored("points", [("a", said)]) == {
        "a": (score, {"asked": len(said), **dict(zip(("n", "sum", "unread"), counted, strict=True))})
    }


def test_the_questions_about_one_answer_count_together_and_on_their_scale() -> None:
    found = scored("points", [("a", ["6"]), ("b", ["1"]), ("a", ["2"])], scale=6)
    assert found == {
        "a": (4.0, {"asked": 2, "n": 2, "sum": 8, "unread": 0}),
        "b": (1.0, {"asked": 1, "n": 1, "sum": 1, "unread": 0}),
    }


# What is said of (a, b) and of (b, a), and what becomes of a: its score, and the one outcome of the pair.
PAIRS = [
    (["A"], ["B"], 1.0, "wins"),
    (["B"], ["A"], 0.0, "losses"),
    (["C"], ["C"], 0.5, "ties"),
    (["A"], ["A"], None, "inconsistent"),
    (["A"], ["C"], None, "inconsistent"),
    (["A", "A", "B"], ["B", None, None], 1.0, "wins"),
    (["A", "B"], ["B"], None, "inconsistent"),
    (["A", "B"], ["A", "B"], None, "inconsistent"),
    (["A"], [None], None, "unread"),
    (["A"], ["I refuse"], None, "unread"),
    ([None], [], None, "unread"),
]


@pytest.mark.parametrize(("forth", "back", "score", "outcome"), PAIRS)
def test_a_pair_is_decided_where_both_orders_agree(forth: list, back: list, score: float | None, outcome: str) -> None:
    found = scored("wins", [("ab", forth), ("ba", back)])
    nothing = dict.fromkeys(("wins", "losses", "ties", "inconsistent", "unread"), 0)
    other = {"wins": "losses", "losses": "wins"}.get(outcome, outcome)
    assert found["a"] == (score, {"asked": 1, **nothing, outcome: 1})
    assert found["b"] == (None if score is None else 1 - score, {"asked": 1, **nothing, other: 1})


def test_a_pair_that_was_asked_about_in_one_order_is_unread() -> None:
    assert scored("wins", [("ba", ["A"])])["b"] == (None, {
        "asked": 1, "wins": 0, "losses": 0, "ties": 0, "inconsistent": 0, "unread": 1,
    })  # fmt: skip


def test_wins_are_a_share_of_the_pairs_that_are_decided() -> None:
    said: Said = [("ab", ["A"]), ("ba", ["B"]), ("ac", ["C"]), ("ca", ["C"]), ("ad", ["A"]), ("da", ["A"])]
    found = scored("wins", said)
    assert {answer: score for answer, (score, _) in found.items()} == {"a": 0.75, "b": 0.0, "c": 0.5, "d": None}


# What is said of (a, b) and of (b, a): whether both say the same.
SAME = [
    (["A"], ["A"], 1.0, "equivalent"),
    (["B"], ["B"], 0.0, "different"),
    (["A"], ["B"], None, "inconsistent"),
    (["A", "B"], ["A"], None, "inconsistent"),
    (["A"], ["C"], None, "unread"),
    ([None], ["A"], None, "unread"),
]


@pytest.mark.parametrize(("forth", "back", "score", "outcome"), SAME)
def test_two_say_the_same_where_both_directions_agree(forth: list, back: list, score: float, outcome: str) -> None:
    nothing = dict.fromkeys(("equivalent", "different", "inconsistent", "unread"), 0)
    found = scored("equivalent", [("ab", forth), ("ba", back)])
    assert found["a"] == found["b"] == (score, {"asked": 1, **nothing, outcome: 1})


def test_equivalence_is_the_share_of_those_that_say_the_same() -> None:
    said: Said = [("ab", ["A"]), ("ba", ["A"]), ("ac", ["B"]), ("ca", ["B"]), ("ad", [None]), ("da", ["A"])]
    found = scored("equivalent", said)
    assert {answer: score for answer, (score, _) in found.items()} == {"a": 0.5, "b": 1.0, "c": 0.0, "d": None}


@pytest.mark.parametrize("name", ["points", "wins", "equivalent"])
def test_nothing_is_made_of_nothing(name: str) -> None:
    assert scored(name, []) == {}
