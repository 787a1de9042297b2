"""Every judge keeps the laws of `laws/judge.py`, and each of these can be broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from pipeline.core.methods import find
from pipeline.kinds.judge import Verdict
from pipeline.laws import judge as laws
from pipeline.laws.judge import Case, Law
from pipeline.laws.law import Broken
from tests.laws.ours import held, named

SOUND = next(laws.cases(find("judge", "verdicts.points")))


@pytest.mark.parametrize(("law", "case"), held("judge"), ids=named)
def test_law(law: Law, case: Case) -> None:
    law(case)


def changed(change: Callable[[str, dict[str, Any]], dict[str, Any]]) -> Callable[[Sequence[Verdict]], Any]:
    """A sound judge whose rows are changed."""
    return lambda verdicts: {name: change(name, row) for name, row in SOUND.judge(verdicts).items()}


def last(verdicts: Sequence[Verdict]) -> Any:
    """The last question about an answer is all that counts."""
    return {verdict.about[0]: SOUND.judge([verdict])[verdict.about[0]] for verdict in verdicts}


def lowest(verdicts: Sequence[Verdict]) -> Any:
    """What cannot be read is one point."""
    known = {"1", "2", "2.5", "5"}
    return SOUND.judge([replace(v, said=tuple(t if t in known else "1" for t in v.said)) for v in verdicts])


BROKEN = {
    "the last": (laws.order_means_nothing, last),
    "by name": (laws.names_mean_nothing, changed(lambda name, row: {**row, "score": float(len(name) + (name < "s"))})),
    "one more": (laws.only_answers_that_were_asked_about, lambda v: {**SOUND.judge(v), "r99": {"quantities": []}}),
    "one less": (laws.only_answers_that_were_asked_about, lambda v: dict(list(SOUND.judge(v).items())[1:])),
    "unread is the lowest": (laws.what_is_unread_decides_nothing, lowest),
    "unread is not counted": (
        laws.what_is_unread_decides_nothing,
        changed(lambda name, row: {**row, "quantities": row["quantities"][1:]}),
    ),
    "infinite": (
        laws.quantities_make_the_score,
        changed(lambda name, row: {**row, "quantities": [("n", float("inf"))]}),
    ),
    "another score": (laws.quantities_make_the_score, changed(lambda name, row: {**row, "score": 1.5})),
    "no score": (laws.quantities_make_the_score, changed(lambda name, row: {**row, "score": None})),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_judge_breaks_a_law(fault: str) -> None:
    law, judge = BROKEN[fault]
    with pytest.raises(Broken):
        law(replace(SOUND, judge=judge))
