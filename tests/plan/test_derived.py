"""Entries of derive: what cannot be meant is a fault, and what their rows may name is part of their identity."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.core import graph
from pipeline.plan.faults import PlanError
from pipeline.plan.resolve import resolve

EVOLVED = {"of": "train", "pool": "asks", "against": "bench", "use": "expansion.evolve", "parts": 4}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"pool": "train"}, "derive.made: pool: is the pool that it reads; name another"),
        ({"against": "train"}, "derive.made: against: is the pool that it reads; name another"),
        ({"which": "wrong"}, "derive.made: which: chooses among answers, and expansion.evolve reads prompts"),
        ({"from": ["teacher"]}, "derive.made: from: chooses among answers, and expansion.evolve reads prompts"),
        ({"use": "written.prompts", "from": ["tacher"]},
         "derive.made: from: no entry 'tacher' of generate answers the pool train; there are base, teacher"),
        ({"use": "variants.report", "student": "sft"},
         "derive.made: student: no entry 'sft' of generate answers the pool train; there are base, teacher"),
        ({"use": "variants.hard", "student": "base", "teacher": "teacher", "from": ["base"]},
         "derive.made: teacher: teacher is not among `from`, so none of its answers would be read"),
        ({"use": "variants.hard", "student": "base", "teacher": "base"},
         "derive.made: student: is the teacher; name another entry of generate"),
        ({"use": "written.tasks", "sections": "("}, "derive.made.sections: is not a regular expression"),
        ({"use": "expansion.envolve"}, "derive.made.use: no operator is called 'expansion.envolve'"),
        ({"of": "bench", "against": "train"}, "nothing answers the pool bench. Add an entry to generate"),
        ({"pool": "Big"}, "derive.made.pool: String should match"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_a_fault(given: dict[str, Any], entry: dict[str, Any], told: str) -> None:
    given["derive"] = {"made": {**EVOLVED, **entry}}
    with pytest.raises(PlanError) as error:
        resolve(given)
    assert any(told in fault for fault in error.value.faults), error.value.faults


def test_entries_of_one_pool_have_one_number_of_parts(given: dict[str, Any]) -> None:
    given["derive"] = {"made": EVOLVED, "more": {**EVOLVED, "seed": 2, "parts": 3}}
    with pytest.raises(PlanError, match=r"derive\.more: parts: is 3, and 4 in derive\.made; a pool has one number"):
        resolve(given)


def test_pools_that_are_made_of_each_other_are_a_fault(given: dict[str, Any]) -> None:
    answered = {"model": "teacher", "k": 1, "temperature": 1.0}
    given["derive"] = {"there": {**EVOLVED, "of": "a", "pool": "b"}, "back": {**EVOLVED, "of": "b", "pool": "a"}}
    for name in ("a", "b"):
        given["curate"][name] = {"against": "bench"}
        given["generate"][name] = {**answered, "pool": name}
    with pytest.raises(PlanError) as error:
        resolve(given)
    assert any("derive@there" in fault and "derive@back" in fault for fault in error.value.faults)


def test_a_verifier_that_rows_may_name_is_part_of_their_identity(given: dict[str, Any]) -> None:
    """That of an operator that declares it, or of the entry; the parents' come with the pool."""
    given["derive"] = {
        "asked": {**EVOLVED, "pool": "asked", "use": "aspects.yes_no", "questions": ["Is it long?"]},
        "named": {**EVOLVED, "pool": "named", "verifier": "text.line"},
        "plain": {**EVOLVED, "pool": "plain"},
    }
    plan = resolve(given)
    found = {name: graph.named(plan, plan.instances[f"derive@{name}"], "verifier") for name in given["derive"]}
    of_pool = graph.named(plan, plan.instances["curate@train"], "verifier")
    assert "text.line" not in of_pool and found["plain"] == of_pool
    assert found["asked"] == found["named"] == of_pool | {"text.line"}
