"""Every evaluator keeps the laws of `laws/evaluator.py`, and each of these can be broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from pipeline.core.methods import find
from pipeline.kinds.evaluator import Evaluator, Exam, Mark
from pipeline.laws import evaluator as laws
from pipeline.laws.evaluator import Case, Law
from pipeline.laws.law import Broken
from tests.laws.ours import held, named

[SOUND] = laws.cases(find("evaluator", "answers.greedy"))


@pytest.mark.parametrize(("law", "case"), held("evaluator"), ids=named)
def test_law(law: Law, case: Case) -> None:
    law(case)


def changed(**columns: object) -> Evaluator:
    """A sound evaluator whose marks are changed."""
    return lambda exam: (replace(mark, **columns) for mark in SOUND.evaluator(exam))


def twice(exam: Exam) -> Iterator[Mark]:
    for mark in SOUND.evaluator(exam):
        yield from (mark, mark)


def by_place(exam: Exam) -> Iterator[Mark]:
    for place, mark in enumerate(SOUND.evaluator(exam)):
        yield replace(mark, metric=float(place))


def upside_down(exam: Exam) -> Iterator[Mark]:
    for mark in SOUND.evaluator(exam):
        yield replace(mark, metric=None if mark.metric is None else 1 - mark.metric)


BROKEN = {
    "two marks": (laws.every_mark_is_a_row, twice),
    "infinite": (laws.every_mark_is_a_row, changed(quantities={"tokens": float("inf")})),
    "nothing": (laws.every_mark_is_a_row, changed(metric=None)),
    "an item of its own": (laws.every_mark_is_a_row, changed(item=replace(laws.items(1)[0], prompt_id="x"))),
    "by place": (laws.order_means_nothing, by_place),
    "upside down": (laws.better_answers_are_no_worse, upside_down),
    "right without a reference": (laws.without_references_nobody_is_right, changed(quantities={"right": 1.0})),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_evaluator_breaks_a_law(fault: str) -> None:
    law, evaluator = BROKEN[fault]
    with pytest.raises(Broken):
        law(replace(SOUND, evaluator=evaluator))
