"""Every reader keeps the laws of `laws/reader.py`, and each of these can be broken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.core.methods import find
from pipeline.kinds.backend import Reading
from pipeline.laws import reader as laws
from pipeline.laws.law import Broken
from pipeline.laws.reader import Case, Law
from tests.laws.ours import held, named

[SOUND] = laws.cases(find("reader", "likelihood.nll"))


@pytest.mark.parametrize(("law", "case"), held("reader"), ids=named)
def test_law(law: Law, case: Case) -> None:
    law(case)


def score(reading: Reading, **other: Any) -> dict[str, Any]:
    return {**SOUND.reader(reading), **other}


def writing(reading: Reading) -> dict[str, Any]:
    found = score(reading)
    reading.target_logprob[:] = 0
    return found


BROKEN = {
    "another column": (laws.it_gives_a_row_of_scores, lambda r: score(r, parts=[])),
    "of one token NaN": (
        laws.every_number_is_finite,
        lambda r: score(r, score=float("nan") if len(r.target_logprob) == 1 else 1.0),
    ),
    "infinite": (laws.every_number_is_finite, lambda r: score(r, quantities=[("perplexity", float("inf"))])),
    "a vector with NaN": (laws.every_number_is_finite, lambda r: score(r, vector=[1.0, float("nan")])),
    "a constant": (laws.only_the_reading_counts, lambda r: score(r, score=1.0, quantities=[])),
    "counts calls": (laws.only_the_reading_counts, lambda r, calls=[]: score(r, score=calls.append(1) or len(calls))),
    "in place": (laws.only_the_reading_counts, writing),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_reader_breaks_a_law(fault: str) -> None:
    law, reader = BROKEN[fault]
    with pytest.raises(Broken):
        law(replace(SOUND, reader=reader))
