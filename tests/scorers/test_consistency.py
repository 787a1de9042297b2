"""Votes that are weighted, and classes that hang on no order, with values that can be worked out by hand."""

from __future__ import annotations

import itertools
import math

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pipeline.kinds import verifier as verifiers
from pipeline.tables.sql import MACROS
from tests.scorers.scored import score, votes

HALF, TENTH = math.log(0.5), math.log(0.1)
NAN = float("nan")


def logprobs(rows: dict[str, list], *values: list[float] | None) -> dict[str, list]:
    return {**rows, "logprobs": pa.array(values, pa.list_(pa.float32()))}


def test_a_likely_answer_outvotes_two_unlikely_ones() -> None:
    rows = logprobs(votes("7", "8", "8"), [HALF], [TENTH], [TENTH])
    scores, quantities = score("consistency.likely", rows)
    assert scores == pytest.approx([0.5 / 0.7, 0.2 / 0.7, 0.2 / 0.7], abs=1e-7)
    assert [q["own"] for q in quantities] == pytest.approx([1, 0.2, 0.2], abs=1e-7)


@pytest.mark.parametrize(("by_token", "first"), [(True, 0.5), (False, 0.25 / 0.75)])
def test_a_probability_is_that_of_all_tokens_or_their_mean(by_token: bool, first: float) -> None:
    rows = logprobs(votes("7", "8"), [HALF, HALF], [HALF])
    assert score("consistency.likely", rows, by_token=by_token)[0][0] == pytest.approx(first, abs=1e-7)


def test_probabilities_that_are_no_floats_are_still_weighed() -> None:
    scores, _ = score("consistency.likely", logprobs(votes("7", "8"), [-5000.0], [-5001.0]), by_token=False)
    assert scores == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.e)], abs=1e-6)


@pytest.mark.parametrize("none", [None, [], [NAN, -1.0], [-math.inf], [None, -1.0]])
def test_a_sample_without_probability_has_no_vote(none: list | None) -> None:
    scores, quantities = score("consistency.likely", logprobs(votes("7", "8", "7"), [HALF], [HALF], none))
    assert scores == [0.5, 0.5, None]
    assert {q["weighted"] for q in quantities} == {2} and {q["samples"] for q in quantities} == {3}


def test_no_sample_with_a_probability_and_no_sample() -> None:
    assert score("consistency.likely", logprobs(votes("7", "8"), None, [NAN]))[0] == [None, None]
    assert score("consistency.likely", logprobs(votes()))[0] == []
    assert score("consistency.likely", logprobs(votes("7"), [HALF]))[0] == [1]


def test_unread_samples_keep_their_weight_in_the_total() -> None:
    assert score("consistency.likely", logprobs(votes("7", None), [HALF], [HALF]))[0] == [0.5, None]


def test_classes_are_numbered_in_alphabetic_order() -> None:
    scores, quantities = score("consistency.classes", votes("b", "a", None, "b"))
    assert scores == [1, 0, None, 1]
    assert [q["votes"] for q in quantities] == [2, 1, 0, 2]


class Near:
    """Holds neighbours for equal, and nothing that is further away: equality that is not transitive."""

    def equal(self, answer: str, reference: str) -> bool:
        return abs(ord(answer) - ord(reference)) <= 1


def test_classes_are_the_same_in_any_order_where_equality_is_not_transitive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifiers, "verifier_named", lambda name: Near())
    verifiers.same.cache_clear()
    found = set()
    for order in itertools.permutations("abcd"):
        scores, _ = score("consistency.classes", votes(*order, verifier="numeric.last"))
        found.add(tuple(sorted(zip(order, scores, strict=True))))
    verifiers.same.cache_clear()
    # `b` joins `a`; `c` is none of `a`, and stands for itself.
    assert found == {(("a", 0), ("b", 0), ("c", 1), ("d", 1))}


def test_only_distinct_texts_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    class Counting:
        def equal(self, answer: str, reference: str) -> bool:
            asked.append((answer, reference))
            return False

    monkeypatch.setattr(verifiers, "verifier_named", lambda name: Counting())
    verifiers.same.cache_clear()
    score("consistency.agreement", votes(*"ab" * 500, verifier="numeric.last"))
    verifiers.same.cache_clear()
    assert len(asked) == 1


def test_any_score_weighs_votes_by_a_macro() -> None:
    rows = pa.table({
        "prompt_id": ["p"] * 4, "entry": ["m"] * 4, "class": [0.0, 0.0, 1.0, None], "critic": [0.1, 0.2, 0.9, 0.8],
    })  # fmt: skip

    def ask(expression: str) -> list[float | None]:
        found = connection.execute(f"SELECT {expression} FROM rows ORDER BY class NULLS LAST, critic").fetchall()
        return [value for (value,) in found]

    connection = duckdb.connect()
    connection.register("rows", rows)
    for macro in MACROS:
        connection.execute(f"CREATE MACRO {macro}")
    assert ask("trusted(critic, class)") == [pytest.approx(0.15), pytest.approx(0.15), pytest.approx(0.45), None]
    assert ask("trusted(CASE WHEN critic >= 0.5 THEN 1 END, class)") == [None, None, 0.5, None]
    assert ask("trusted(0 * critic, class)") == [None] * 4


def test_a_vote_of_contradictions_wants_more_than_half_of_what_was_read() -> None:
    scores, quantities = score("consistency.uncontradicted", votes("7", "7", "8", None, "7", "9"))
    assert scores == [1, 1, 0, None, 1, 0]
    assert (quantities[0]["support"], quantities[0]["contradicting"]) == (3, 2)
    assert score("consistency.uncontradicted", votes("7", "8"))[0] == [0, 0]
    assert score("consistency.uncontradicted", votes("7"))[0] == [1]


def test_the_vote_keeps_what_is_right_of_a_weak_generator() -> None:
    """Of 20 answers each, 60 % of them right: the kept are right, and a random choice of as many is not."""
    draw = np.random.default_rng(0)
    kept, kept_right, right = 0, 0, 0
    for _ in range(200):
        wrong = draw.integers(1, 6, 20)
        answers = np.where(draw.random(20) < 0.6, 0, wrong)
        scores = score("consistency.uncontradicted", votes(*map(str, answers)))[0]
        kept += sum(scores)
        kept_right += sum(s for s, answer in zip(scores, answers, strict=True) if answer == 0)
        right += int((answers == 0).sum())
    assert kept_right / kept >= 0.9
    assert kept_right / kept - right / 4000 >= 0.1
