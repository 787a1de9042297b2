"""Variants: which failures are asked about, and what a report shows of them."""

from __future__ import annotations

import pytest

from pipeline.kinds.operator import Child, Parent
from tests.operators.made import answer, asked, made, prompt

SUMS = [prompt(f"What is {i} + {i}?", "add", str(2 * i)) for i in range(4)]
LISTS = [prompt(f"Sort {i}.", "sort", str(i)) for i in range(4)]


def answers(to: Parent, entry: str, *said: str) -> list[Parent]:
    return [answer(to, text, entry, i) for i, text in enumerate(said)]


def test_hard_shows_the_first_wrong_answer_of_the_student() -> None:
    parents = [*answers(SUMS[3], "teacher", "7", "6"), *answers(SUMS[3], "base", "6", "It is 5. ", "4", "3")]
    [child] = made("variants.hard", parents, teacher="teacher", student="base", count=2)
    assert isinstance(child, Child) and [parent.id for parent in child.parents] == [parents[3].id]
    assert child.columns == {
        "prompt": "A student got this task wrong:\n\nWhat is 3 + 3?\n\nIt answered:\n\nIt is 5.\n\n"
        "The right answer is 6. Write 2 new tasks that need the same skill and are as hard or harder, each with other "
        "content and other words. Begin each with its number, and write nothing else."
    }


@pytest.mark.parametrize(
    ("teacher", "student", "made_of"),
    [
        ("6", "5", 1),
        ("6", "6", 0),
        ("5", "5", 0),
        ("5", "6", 0),
        ("6", "", 1),
        ("6", None, 0),
        (None, "5", 0),
    ],
)
def test_hard_is_what_the_student_fails_and_the_teacher_does_not(
    teacher: str | None, student: str | None, made_of: int
) -> None:
    said = [answer(SUMS[3], text, entry) for entry, text in (("t", teacher), ("s", student)) if text is not None]
    assert len(asked("variants.hard", said, teacher="t", student="s")) == made_of


def test_domains_are_chosen_by_their_gap() -> None:
    """In `add` the teacher is ahead by 1/4, in `sort` by 3/4; what only one of them answered does not count."""
    parents = [answer(p, str(p.reference), "t") for p in SUMS + LISTS]
    parents += [answer(p, "99" if i == 0 else str(p.reference), "s") for i, p in enumerate(SUMS)]
    parents += [answer(p, "99" if i < 3 else str(p.reference), "s") for i, p in enumerate(LISTS)]
    parents += [
        answer(prompt("Only the teacher's.", "add", "1"), "1", "t"),
        answer(prompt("No one can tell."), "1", "s"),
    ]

    def domains(gap: float) -> list[str]:
        made_of = made("variants.hard", parents, teacher="t", student="s", gap=gap)
        return sorted(one.parents[0].domain for one in made_of if isinstance(one, Child))

    assert domains(0.0) == ["add", *["sort"] * 3]
    assert domains(0.25) == domains(0.7) == ["sort"] * 3
    assert domains(0.75) == []


def test_a_teacher_that_is_no_better_asks_for_nothing() -> None:
    right, wrong = SUMS[:2], SUMS[2:]
    parents = [answer(p, str(p.reference) if p in right else "99", "t") for p in SUMS]
    parents += [answer(p, str(p.reference) if p in wrong else "99", "s") for p in SUMS]
    assert asked("variants.hard", parents, teacher="t", student="s") == []


def test_a_report_tells_the_rates_and_shows_an_answer_of_every_sort() -> None:
    parents = [
        *answers(SUMS[0], "s", "0", "0", "0", "0"),
        *answers(SUMS[1], "s", "3", "4", "2", "3"),
        *answers(SUMS[2], "s", "8", "9", "8", "8"),
        *answers(LISTS[1], "s", "1", "1"),
        *answers(LISTS[1], "teacher", "2"),
    ]
    [child] = made("variants.report", parents, student="s", rows=1, count=4)
    assert isinstance(child, Child) and child.columns == {
        "prompt": "A student answers tasks of several domains. So many of its answers are right:\n\n"
        "add: 42% of 3 tasks\nsort: 100% of 1 tasks\n\n"
        "Right:\n1. What is 0 + 0?\nRight: 0\n\n"
        "Wrong:\n1. What is 1 + 1?\nSaid: 3\nRight: 2\n\n"
        "Wrong, and sure of it:\n1. What is 2 + 2?\nSaid: 8\nRight: 4\n\n"
        "Write 4 new tasks of the domain add, from which the student would learn what it lacks, each with its right "
        'answer: as a JSON list of objects with the keys "prompt" and "reference", and nothing else.'
    }
    assert [(parent.question[8], parent.answer) for parent in child.parents] == [("0", "0"), ("1", "3"), ("2", "8")]


@pytest.mark.parametrize(
    ("said", "sure"),
    [
        (["9", "9"], True),
        (["9"], False),
        (["9", "9", "4", "4"], False),
        (["9", "8"], False),
        (["9", "9", "4"], True),
        (["none", "none"], False),
    ],
)
def test_a_hard_negative_is_wrong_in_most_samples_and_the_same(said: list[str], sure: bool) -> None:
    [text] = asked("variants.report", answers(SUMS[2], "s", *said), student="s", rows=1)
    assert ("\nWrong, and sure of it:\n" in text, "\nWrong:\n" in text) == (sure, not sure)


def test_rows_are_dealt_to_the_domains_in_which_something_is_wrong() -> None:
    parents = [answer(p, "99", "s") for p in SUMS + LISTS] + [answer(prompt("Easy.", "easy", "1"), "1", "s")]
    children = [one for one in made("variants.report", parents, student="s", rows=7, shown=2) if isinstance(one, Child)]
    assert [child.parents[0].domain for child in children] == ["add", "sort"] * 3 + ["add"]
    assert all(len(child.parents) == 2 for child in children)
    assert len({str(child.columns["prompt"]) for child in children}) > 4
    right = [answer(p, str(p.reference), "s") for p in SUMS]
    assert asked("variants.report", right, student="s") == []
    assert asked("variants.report", parents, student="another") == []
