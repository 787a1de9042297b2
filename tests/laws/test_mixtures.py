"""Every mixture keeps the laws of `laws/mixture.py`, and each of these can be broken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.core.methods import find
from pipeline.kinds.mixture import Domains
from pipeline.laws import mixture as laws
from pipeline.laws.law import Broken
from pipeline.laws.mixture import Case, Law
from tests.laws.ours import held, named

SOUND = next(laws.cases(find("mixture", "weights.size")))


@pytest.mark.parametrize(("law", "case"), held("mixture"), ids=named)
def test_law(law: Law, case: Case) -> None:
    law(case)


def writing(domains: Domains) -> np.ndarray:
    weights = SOUND.mixture(domains)
    domains.cost[:] = 0
    return weights


BROKEN = {
    "one too few": (laws.shares_of_all, lambda d: SOUND.mixture(d)[1:]),
    "below nothing": (laws.shares_of_all, lambda d: SOUND.mixture(d) - 1 / len(d)),
    "too much": (laws.shares_of_all, lambda d: SOUND.mixture(d) * 2),
    "of nothing NaN": (laws.shares_of_all, lambda d: d.student_passed / d.student_passed.sum()),
    "the first": (laws.only_what_is_known_counts, lambda d: np.eye(len(d))[0]),
    "in place": (laws.only_what_is_known_counts, writing),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_mixture_breaks_a_law(fault: str) -> None:
    law, mixture = BROKEN[fault]
    with pytest.raises(Broken):
        law(replace(SOUND, mixture=mixture))
