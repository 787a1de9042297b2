"""Tasks that were written, with the results that a procedure finds."""

from __future__ import annotations

from pipeline.kinds.operator import Child
from tests.operators.made import answer, made, prompt, unread

ASKED = prompt("Write some tasks.", "sort")


def test_a_task_has_the_result_of_its_procedure_and_the_kind_that_it_is_of() -> None:
    found = made("procedural.solved", [answer(ASKED, "fake:\n1. add 012 345\n2. cnt a banana")])
    children = [child.columns for child in found if isinstance(child, Child)]
    assert [(c["prompt"], c["reference"], c["domain"]) for c in children] == [
        ("add 012 345", "0357", "add"), ("cnt a banana", "3", "count"),
    ]  # fmt: skip
    assert {c["verifier"] for c in children} == {"text.marked"} and children[0]["group"] == "add 012 345"


def test_what_is_no_task_is_told_one_by_one() -> None:
    why = ["no task of the eight kinds is written there"]
    said = [answer(ASKED, "1. add 1 2\n2. mul 017 3")]
    assert unread("procedural.solved", said) == why and len(made("procedural.solved", said)) == 2
    assert unread("procedural.solved", [answer(ASKED, "nothing")], form="whole") == why
