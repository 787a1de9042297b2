"""The best by a number: bands and ratios are kept, and noise and trivial text are not."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import Refused
from pipeline.kinds.selector import Budget
from pipeline.selectors import rank, reasoning
from tests.selectors.given import rows


def test_the_band_leaves_out_what_is_too_easy_and_too_hard() -> None:
    value = np.array([0.0, 0.1, 0.5, 1.0, 1.1, np.nan])
    choose = rank.hard(disagreement="d", least=0.1, most=1.0)
    reasons = choose(rows(6, d=value), Budget(rows=2), 0).reason.tolist()
    assert reasons == ["too_easy", "over_budget", "in_band", "in_band", "too_hard", "no_value"]
    with pytest.raises(Refused, match=r"least \(2\) is above most \(1\)"):
        rank.hard(disagreement="d", least=2.0, most=1.0)


def test_miniplm_keeps_neither_noise_nor_trivial_text() -> None:
    rng = np.random.default_rng(0)
    kind = np.arange(300) % 3  # what is learnt late, noise, and repetition
    teacher = np.array([1.0, 6.0, 0.1])[kind] + rng.normal(0, 0.1, 300)
    small = np.array([3.0, 6.0, 0.1])[kind] + rng.normal(0, 0.1, 300)
    teacher[0] = np.nan
    decision = rank.miniplm(reference="s", teacher="t", ratio=0.33)(rows(300, s=small, t=teacher), Budget(), 0)
    assert decision.kept.sum() == int(0.33 * 299) and set(kind[decision.kept]) == {0}
    assert decision.reason[0] == "no_value"
    fewer = rank.miniplm(reference="s", teacher="t", ratio=0.33)(rows(300, s=small, t=teacher), Budget(rows=5), 0)
    assert fewer.kept.sum() == 5 and (fewer.reason == "over_budget").sum() == 93


def test_s1_takes_domains_alike_and_long_answers_more_often() -> None:
    domains = np.array(["a"] * 90 + ["b"] * 10, object)
    given = rows(100, domains=domains, n=np.arange(100.0))
    longest, of_b = 0, 0
    for seed in range(400):
        [kept] = np.flatnonzero(reasoning.s1(length="n")(given, Budget(rows=1), seed).kept)
        of_b += kept >= 90
        longest += kept in (89, 99)
    assert of_b / 400 == pytest.approx(0.5, abs=0.08) and longest / 400 == pytest.approx(0.5, abs=0.08)
    every = reasoning.s1(length="n")(given, Budget(rows=60), 0)
    assert every.kept[90:].all() and every.kept.sum() == 60
