"""Every rule keeps the laws of `laws/rule.py`, and each of these can be broken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.core.methods import find
from pipeline.kinds.rule import Rule, Texts
from pipeline.laws import rule as laws
from pipeline.laws.law import Broken
from pipeline.laws.rule import Case, Law
from pipeline.text.duplicates import near_duplicates
from tests.laws.ours import held, named

[EXACT] = laws.cases(find("rule", "duplicates.exact"))
[KEY] = laws.cases(find("rule", "contamination.key"))
[REFUSAL] = laws.cases(find("rule", "form.refusal"))


@pytest.mark.parametrize(("law", "case"), held("rule"), ids=named)
def test_law(law: Law, case: Case) -> None:
    law(case)


def found(texts: Texts) -> dict[int, str]:
    return dict(EXACT.rule(texts, texts))


def plain_minhash(texts: Texts, benchmark: Texts) -> dict[int, str]:
    """As it is usually done: by how texts read alone."""
    return dict.fromkeys(near_duplicates(texts.plain, lambda i: 0, threshold=0.7, words=3), "alike")


CALLS: list[int] = []
BROKEN: dict[str, tuple[Law, Case, Rule]] = {
    "no evidence": (laws.every_find_has_evidence, EXACT, lambda t, b: dict.fromkeys(found(t), "")),
    "ids": (laws.every_find_has_evidence, EXACT, lambda t, b: {t.ids[i]: e for i, e in found(t).items()}),  # type: ignore[misc]
    "counts calls": (laws.every_find_has_evidence, EXACT, lambda t, b: CALLS.append(1) or {0: str(len(CALLS))}),  # type: ignore[func-returns-value]
    "the first always": (laws.nothing_is_found_in_nothing, EXACT, lambda t, b: {0: "the first"}),
    "without items": (laws.nothing_is_found_in_nothing, KEY, lambda t, b: {} if len(b) else {0: "clean"}),
    "the shortest": (
        laws.what_is_left_is_left,
        EXACT,
        lambda t, b: {min(range(len(t)), key=lambda i: (len(t.raw[i].as_py()), i)): "short"},
    ),
    "the neighbour": (laws.other_texts_change_nothing, KEY, lambda t, b: dict.fromkeys(range(1, len(t)), "after")),
    "no Alone": (laws.other_texts_change_nothing, REFUSAL, lambda t, b: REFUSAL.rule(t, b)),
    "the last stays": (laws.of_copies_the_first_stays, EXACT, lambda t, b: {i - 1: e for i, e in found(t).items()}),
    "by how they read": (laws.a_template_filled_otherwise_stays, EXACT, plain_minhash),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_rule_breaks_a_law(fault: str) -> None:
    law, case, rule = BROKEN[fault]
    with pytest.raises(Broken):
        law(replace(case, rule=rule))
