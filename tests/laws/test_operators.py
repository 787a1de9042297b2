"""Every operator keeps the laws of `laws/operator.py`, and each of these can be broken."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from pipeline.core.methods import find
from pipeline.kinds.operator import Child
from pipeline.laws import operator as laws
from pipeline.laws.law import Broken
from pipeline.laws.operator import Case, Law
from pipeline.sandbox import unsafe
from tests.laws.ours import held, named

SOUND = next(laws.cases(find("operator", "expansion.evolve")))
CALLS = itertools.count()


@pytest.mark.parametrize(("law", "case"), held("operator"), ids=named)
def test_law(law: Law, case: Case) -> None:
    if "sandbox" in case.method.arguments.model_fields and case.arguments.get("sandbox") != "none" and unsafe():
        pytest.skip(f"no sandbox here: {unsafe()}")
    law(case)


BROKEN = {
    "no parents": (laws.children_of_parents_that_are_there, lambda ps, s: (Child([], {"prompt": "x"}) for _ in ps)),
    "a parent of its own": (
        laws.children_of_parents_that_are_there,
        lambda ps, s: (Child([replace(p, level=7)], {"prompt": "x"}) for p in ps),
    ),
    "an empty prompt": (
        laws.children_of_parents_that_are_there,
        lambda ps, s: (Child([p], {"prompt": ""}) for p in ps),
    ),
    "nothing": (laws.children_of_parents_that_are_there, lambda ps, s: iter(())),
    "always the same": (
        laws.children_of_parents_that_are_there,
        lambda ps, s: iter([Child(laws.parents_for(SOUND.method)[:1], {"prompt": "x"})]),
    ),
    "another each time": (
        laws.the_same_for_the_same_seed,
        lambda ps, s: (Child([p], {"prompt": str(next(CALLS))}) for p in ps),
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_operator_breaks_a_law(fault: str) -> None:
    law, operator = BROKEN[fault]
    with pytest.raises(Broken):
        law(replace(SOUND, operator=operator))
