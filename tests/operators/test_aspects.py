"""Aspects: every question about every prompt, whatever else is asked."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.core.methods import Use, find
from pipeline.kinds.operator import Child, Operator
from pipeline.kinds.source import GivenRow
from pipeline.text.intake import Intake
from tests.operators.made import asked, made, prompt

POOL = [prompt("Sum 1 and 2."), prompt("Sort {b} and a.", "sort")]
QUESTIONS = ("Is it about numbers?", "Does it need more than one step?")


def test_a_question_is_asked_about_a_prompt_and_read_as_one_line() -> None:
    [child] = made("aspects.yes_no", POOL[:1], questions=QUESTIONS[:1])
    assert isinstance(child, Child) and child.columns == {
        "prompt": "Here is a task. Do not answer it:\n\nSum 1 and 2.\n\nIs it about numbers? Answer with yes or no and "
        "nothing else.",
        "verifier": "text.line",
    }
    assert find("operator", "aspects.yes_no").traits["verifiers"] == ("text.line",)


def test_what_is_asked_hangs_on_the_prompt_and_the_question_alone() -> None:
    """So a question that is added leaves the ids of the others, and with them what is known."""

    def ids(pool: list, questions: tuple[str, ...]) -> set[object]:
        intake = Intake({}, "d", None, None, 1000)
        made_of = made("aspects.yes_no", pool, questions=questions)
        rows = [intake.read(GivenRow(str(i), c.columns)) for i, c in enumerate(made_of) if isinstance(c, Child)]
        return {row["prompt_id"] for row in rows if isinstance(row, dict)}

    both = ids(POOL, QUESTIONS)
    assert len(both) == 4
    assert both == ids(POOL, QUESTIONS[::-1]) == ids(POOL, QUESTIONS[:1]) | ids(POOL, QUESTIONS[1:])
    assert both == ids(POOL[:1], QUESTIONS) | ids(POOL[1:], QUESTIONS)


def test_questions_are_asked_for_once_a_domain() -> None:
    text, other = asked("aspects.questions", POOL, count=9)
    assert text == (
        "Here are 1 tasks of one kind:\n\n1. Sum 1 and 2.\n\nWrite 9 questions that can be asked about every task of "
        "this kind and answered with yes or no, each about another aspect of it. Begin each with its number, and write "
        "nothing else."
    )
    assert "1. Sort {b} and a.\n" in other
    many = [prompt(f"Sum {i}.") for i in range(50)]
    [shown] = made("aspects.questions", many, shown=4)
    assert isinstance(shown, Child) and len({parent.id for parent in shown.parents}) == 4


def test_no_questions_are_a_fault() -> None:
    with pytest.raises(ValidationError, match="questions"):
        Use[Operator].model_validate({"use": "aspects.yes_no", "questions": []})
    with pytest.raises(ValidationError, match="questions"):
        Use[Operator].model_validate({"use": "aspects.yes_no"})
