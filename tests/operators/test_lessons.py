"""Lessons: one question for every prompt that was answered wrong."""

from __future__ import annotations

from tests.operators.made import answer, asked, prompt

SUM = prompt("What is {1} + 1?", reference="2")


def test_a_wrong_answer_is_shown_and_its_lesson_asked_for() -> None:
    [text] = asked("lessons.summary", [answer(SUM, "It is 3.", sample=0), answer(SUM, "4", sample=1)])
    assert text == (
        "A student was given this task:\n\nWhat is {1} + 1?\n\nIts answer is wrong:\n\nIt is 3.\n\n"
        "Write what is to be learnt from this for all tasks of the kind. Do not solve this one, and name nothing that "
        "stands in it alone. Write two parts:\n"
        "Learning summary: how to think about such tasks, and what to avoid.\n"
        "Supplementary knowledge: the facts and rules that one must know for them."
    )


def test_what_is_right_or_cannot_be_judged_teaches_no_lesson() -> None:
    assert asked("lessons.summary", [answer(SUM, "2"), answer(prompt("Say it."), "3")]) == []
    [text] = asked("lessons.summary", [answer(SUM, "2", sample=0), answer(SUM, "", sample=1)])
    assert "Its answer is wrong:\n\n(nothing)\n" in text
