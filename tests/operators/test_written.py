"""What a model wrote, read: prompts, and tasks with their right answers."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.core.methods import Use
from pipeline.kinds.operator import Child, Operator
from tests.operators.made import answer, asked, made, prompt, unread

ASKED = prompt("Write some tasks.")


@pytest.mark.parametrize(
    ("said", "form", "found"),
    [
        ("Here they are:\n1. One.\n2) Two,\nin lines.\n", "numbered", ["One.", "Two,\nin lines."]),
        ("## Task 1: One.\nQuestion 2. Two.\n 10. Ten.", "numbered", ["One.", "Two.", "Ten."]),
        ("1. What is 3.5 + 2?\n2. x", "numbered", ["What is 3.5 + 2?", "x"]),
        ("1.\n2. \n3. Three.", "numbered", ["Three."]),
        ("One.\n\n  Two. \n", "lines", ["One.", "Two."]),
        (" One.\nTwo. ", "whole", ["One.\nTwo."]),
        ("\u5c0f\u660e\n", "lines", ["\u5c0f\u660e"]),
    ],
)
def test_prompts_of_every_form(said: str, form: str, found: list[str]) -> None:
    assert asked("written.prompts", [answer(ASKED, said)], form=form) == found


@pytest.mark.parametrize(("said", "form"), [("", "whole"), (" \n", "lines"), ("I cannot do that.", "numbered")])
def test_an_answer_without_prompts_is_told(said: str, form: str) -> None:
    assert unread("written.prompts", [answer(ASKED, said)], form=form) == [f"no prompt is written in it ({form})"]


def test_short_prompts_are_none() -> None:
    said = answer(ASKED, "1. ok\n2. long enough")
    assert asked("written.prompts", [said], least=3) == ["long enough"]
    assert len(unread("written.prompts", [said], least=99)) == 1


ONE = {"prompt": "What is 1 + 1?", "reference": 2}


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ('[{"prompt": "What is 1 + 1?", "reference": 2}]', [ONE]),
        ('Here:\n```json\n[{"prompt": "What is 1 + 1?", "reference": 2}]\n```\nDone [1].', [ONE]),
        ('Sure: [{"prompt": "What is 1 + 1?", "reference": 2}] as you like', [ONE]),
        ('{"tasks": [{"prompt": "What is 1 + 1?", "reference": 2}]}', [ONE]),
        ('{"prompt": "What is 1 + 1?", "reference": 2, "note": "easy", "domain": null}', [ONE]),
        ('[{"prompt": " a ", "level": "3", "domain": "sum "}]', [{"prompt": "a", "level": 3, "domain": "sum"}]),
        ('[{"prompt": "a", "level": "hard"}]', [{"prompt": "a", "level": "hard"}]),
    ],
)
def test_tasks_in_json(said: str, found: list[dict[str, Any]]) -> None:
    made_of = made("written.tasks", [answer(ASKED, said)])
    assert [one.columns for one in made_of if isinstance(one, Child)] == found and len(made_of) == len(found)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", ["no tasks are written in it (JSON)"]),
        ("[]", ["no tasks are written in it (JSON)"]),
        ('[{"prompt": "cut off', ["no tasks are written in it (JSON)"]),
        ("[" * 100_000, ["no tasks are written in it (JSON)"]),
        ('{"answer": 3}', ["no tasks are written in it (JSON)"]),
        ('["a", {"reference": 3}, {"prompt": ""}, {"prompt": null}]', ["a task has no prompt"] * 4),
        ("I have [3] of them.", ["a task has no prompt"]),
    ],
)
def test_what_is_no_task_is_told(said: str, why: list[str]) -> None:
    assert unread("written.tasks", [answer(ASKED, said)]) == why
    assert asked("written.tasks", [answer(ASKED, said)]) == []


def test_one_bad_task_leaves_the_others() -> None:
    said = answer(ASKED, '[{"prompt": "a"}, 3, {"prompt": "b"}]')
    assert asked("written.tasks", [said]) == ["a", "b"] and unread("written.tasks", [said]) == ["a task has no prompt"]


SECTIONS = r"(?ms)^# Description\n(?P<prompt>.*?)^# Level\n(?P<level>\d+)\n# Answer\n(?P<reference>.*?)(?=^# Desc|\Z)"


def test_tasks_in_titled_sections() -> None:
    said = "# Description\nSum 1\nand 2.\n# Level\n2\n# Answer\n3\n# Description\nNext.\n# Level\n0\n# Answer\n4"
    found = [
        one.columns for one in made("written.tasks", [answer(ASKED, said)], sections=SECTIONS) if isinstance(one, Child)
    ]
    assert found == [
        {"prompt": "Sum 1\nand 2.", "reference": "3", "level": 2},
        {"prompt": "Next.", "reference": "4", "level": 0},
    ]
    assert unread("written.tasks", [answer(ASKED, "none")], sections=SECTIONS) == [
        "no tasks are written in it (sections)"
    ]


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ("(", "is not a regular expression: missing"),
        ("(?P<reference>.)", r"needs a group \(\?P<prompt>"),
        ("(?P<prompt>.)(?P<answer>.)", "others named reference, level, domain"),
    ],
)
def test_sections_that_name_no_prompt_are_a_fault(sections: str, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Use[Operator].model_validate({"use": "written.tasks", "sections": sections})
