"""Every scorer keeps the laws of `laws/scorer.py`, and each of these can be broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pytest

from pipeline.laws import scorer as laws
from pipeline.laws.law import Broken
from pipeline.laws.scorer import Case, Law
from pipeline.sandbox import unsafe
from tests.laws.ours import held, named, ours

[SOUND] = laws.cases(next(method for method in ours("scorer") if method.name == "verifier.correct"))


@pytest.mark.parametrize(("law", "case"), held("scorer"), ids=named)
def test_law(law: Law, case: Case) -> None:
    if "sandbox" in case.method.arguments.model_fields and case.arguments.get("sandbox") != "none" and unsafe():
        pytest.skip(f"no sandbox here: {unsafe()}")
    law(case)


def changed(change: Callable[[list, pa.Table], list]) -> Callable[[pa.Table], dict]:
    """The sound scorer, whose scores are changed."""

    def scorer(rows: pa.Table) -> dict:
        found = SOUND.scorer(rows)
        return {**found, "score": pa.array(change(found["score"].to_pylist(), rows), pa.float64())}

    return scorer


def mean(scores: list) -> float:
    known = [score for score in scores if score is not None]
    return sum(known) / max(len(known), 1)


BROKEN = {
    "the row above": (laws.order_means_nothing, changed(lambda found, rows: [None, *found[:-1]] if found else [])),
    "less the mean": (laws.parts_mean_nothing, changed(lambda s, rows: [x if x is None else x - mean(s) for x in s])),
    "by another entry": (
        laws.another_entrys_answers_change_nothing,
        changed(lambda found, rows: [x if x is None else x + len(rows) for x in found]),
    ),
    "NaN": (laws.null_and_never_nan, changed(lambda s, rows: [float("nan") if x is None else x for x in s])),
    "no null": (laws.null_and_never_nan, changed(lambda s, rows: [x or 0.0 for x in s])),
    "another number": (laws.quantities_make_the_score, changed(lambda s, rows: [x if x is None else x / 3 for x in s])),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_scorer_breaks_a_law(fault: str) -> None:
    law, scorer = BROKEN[fault]
    with pytest.raises(Broken):
        law(replace(SOUND, scorer=scorer))
