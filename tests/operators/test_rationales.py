"""Rationales: the reasons of right answers and of wrong ones, told apart by who asks."""

from __future__ import annotations

from pipeline.kinds.operator import Child
from tests.operators.made import answer, asked, made, prompt, unread

SUM = prompt("What is {1} + 1?", reference="2")
SAID = [answer(SUM, said, sample=i) for i, said in enumerate(["2", "It is 2.", "3", "so 3", "4", "who knows"])]


def test_a_right_answer_is_to_be_explained_once() -> None:
    [child] = made("rationales.right", SAID)
    assert isinstance(child, Child) and [parent.id for parent in child.parents] == [SAID[0].id]
    assert child.columns == {
        "prompt": "What is {1} + 1?\n\nThe answer is 2. Explain step by step how one comes to it, and end with it.",
        "verifier": "numeric.last",
        "reference": "2",
    }


def test_every_other_wrong_answer_is_to_be_explained_as_if_it_were_right() -> None:
    first, second = asked("rationales.wrong", SAID)
    assert first == (
        "What is {1} + 1?\n\nA student answered 3, which is wrong. Write down step by step, as the student would, how "
        "one comes to that answer, and end with it. Do not say that it is wrong."
    )
    assert "A student answered 4," in second
    assert unread("rationales.wrong", SAID) == ["no answer is read in it"]
    assert {one.columns["reference"] for one in made("rationales.wrong", SAID) if isinstance(one, Child)} == {"2"}


def test_what_cannot_be_judged_is_explained_by_neither() -> None:
    unjudged = [answer(prompt("Say it."), "3")]
    assert made("rationales.right", unjudged) == made("rationales.wrong", unjudged) == []
