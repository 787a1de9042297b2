"""Scores whose values can be worked out by hand."""

import math

import pyarrow as pa
import pytest

from pipeline.core.methods import find
from pipeline.stages.score import Params


def score(name: str, rows: dict[str, list], **arguments: object) -> tuple[list[float | None], list[dict[str, float]]]:
    found = find("scorer", name).factory(**arguments)(pa.table(rows))
    return pa.array(found["score"]).to_pylist(), [dict(row) for row in found["quantities"].to_pylist()]


def votes(*answers: str | None) -> dict[str, list]:
    return {
        "prompt_id": ["p"] * len(answers),
        "entry": ["m"] * len(answers),
        "answer": pa.array(answers, pa.string()),
    }


def test_agreement_counts_equal_answers() -> None:
    scores, quantities = score("consistency.agreement", votes("7", "8", "7", None, "7.0"))
    assert scores == [0.4, 0.2, 0.4, None, 0.2]
    assert [p["majority"] for p in quantities] == [1, 0, 1, 0, 0]
    assert {p["distinct"] for p in quantities} == {3}
    assert {p["margin"] for p in quantities} == {0.2}
    share = [2 / 5, 1 / 5, 1 / 5, 1 / 5]
    assert quantities[0]["entropy"] == pytest.approx(-sum(p * math.log(p) for p in share), abs=1e-12)


def test_agreement_on_numbers_and_on_words() -> None:
    assert score("consistency.agreement", votes("7", "7.0", "$7"), normalise="number")[0] == [1, 1, 1]
    assert score("consistency.agreement", votes("Yes.", "yes", "no"), normalise="text")[0] == [2 / 3, 2 / 3, 1 / 3]


def test_a_tie_goes_to_the_first_in_alphabetic_order() -> None:
    _, quantities = score("consistency.margin", votes("b", "a", "b", "a"))
    assert [p["majority"] for p in quantities] == [0, 1, 0, 1]
    assert quantities[0]["margin"] == 0


def test_a_unanimous_vote_has_no_entropy() -> None:
    scores, quantities = score("consistency.entropy", votes("a", "a"))
    assert scores == [0, 0]
    assert math.copysign(1, scores[0] or 0.0) == 1
    assert quantities[0]["margin"] == 1


def test_unread_answers_are_no_majority() -> None:
    scores, quantities = score("consistency.agreement", votes(None, None, "a"))
    assert scores == [None, None, 1 / 3]
    assert [p["majority"] for p in quantities] == [0, 0, 1]
    assert quantities[0]["margin"] == pytest.approx(1 / 3)


def test_correct_is_null_only_where_it_does_not_apply() -> None:
    rows = {
        "verifier": ["numeric.last", "numeric.last", "numeric.last", None, "numeric.last", "numeric.last"],
        "reference": ["7", "7", "7", "7", None, "7"],
        "answer": ["7.0", "8", None, "7", "7", None],
        "error": pa.array([None, None, None, None, None, "no route"], pa.string()),
    }
    assert score("verifier.correct", rows)[0] == [1, 0, 0, None, None, None]


def test_format_wants_an_answer_and_an_end() -> None:
    rows = {
        "content": ["a b c a b c", "x", "x", None],
        "answer": pa.array(["c", None, "x", None], pa.string()),
        "finish_reason": ["stop", "stop", "length", "error"],
        "error": pa.array([None, None, None, "no route"], pa.string()),
    }
    scores, quantities = score("heuristic.format", rows)
    assert scores == [1, 0, 0, None]
    assert quantities[0]["repeated"] == 0.25
    assert [p["truncated"] for p in quantities] == [0, 0, 1, 0]


def test_only_responses_are_scored() -> None:
    with pytest.raises(ValueError, match="responses/"):
        Params.model_validate({"of": "prompts/train", "use": "consistency.agreement"})
