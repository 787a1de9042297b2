"""Every transform keeps the laws of `laws/transform.py`, and each of these can be broken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.core.methods import find
from pipeline.kinds.transform import Signals
from pipeline.laws import transform as laws
from pipeline.laws.law import Broken
from pipeline.laws.transform import Case, Law
from tests.laws.ours import held, named

SOUND = next(laws.cases(find("transform", "classes.mean")))


@pytest.mark.parametrize(("law", "case"), held("transform"), ids=named)
def test_law(law: Law, case: Case) -> None:
    law(case)


def not_whole(signals: Signals, beside: Signals, seed: int) -> Signals:
    return replace(SOUND.transform(signals, beside, seed), tail_N=signals.tail_N + 0.1)


def unlikely_first(signals: Signals, beside: Signals, seed: int) -> Signals:
    made = SOUND.transform(signals, beside, seed)
    return replace(made, ids_NK=made.ids_NK[:, ::-1], logprobs_NK=made.logprobs_NK[:, ::-1])


def no_tap(signals: Signals, beside: Signals, seed: int) -> Signals:
    return signals


def by_place(signals: Signals, beside: Signals, seed: int) -> Signals:
    return signals.with_feature("class_mean", np.arange(len(signals.row_N))[:, None])


def by_the_seed(signals: Signals, beside: Signals, seed: int) -> Signals:
    return signals.with_feature("class_mean", np.full((len(signals.row_N), 1), seed))


def into_it(signals: Signals, beside: Signals, seed: int) -> Signals:
    signals.weight_B[:] = 0
    return SOUND.transform(signals, beside, seed)


BROKEN = {
    "not whole": (laws.same_places_whole_distributions, not_whole),
    "the unlikeliest first": (laws.same_places_whole_distributions, unlikely_first),
    "a tap is missing": (laws.same_places_whole_distributions, no_tap),
    "by place": (laws.order_of_examples_is_irrelevant, by_place),
    "by the seed": (laws.a_function_of_what_it_is_given, by_the_seed),
    "into what it is given": (laws.a_function_of_what_it_is_given, into_it),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_transform_breaks_a_law(fault: str) -> None:
    law, transform = BROKEN[fault]
    with pytest.raises(Broken):
        law(replace(SOUND, transform=transform))
