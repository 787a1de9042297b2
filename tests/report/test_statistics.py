"""The statistics against closed forms, published values and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.report.statistics import (
    Interval,
    calibration_bins,
    ece,
    mcnemar,
    over_seeds,
    over_seeds_and_items,
    paired_bootstrap,
    paired_normal,
    paired_score,
    unseen,
    verdict,
    wilson,
)


def test_wilson_gives_the_published_values() -> None:
    # Newcombe 1998, table I, method 3.
    for successes, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        interval = wilson(successes, n)
        assert interval.value == successes / n
        assert interval.low == pytest.approx(low, abs=5e-5)
        assert interval.high == pytest.approx(high, abs=5e-5)
    assert wilson(20, 20).high == 1.0
    assert math.isnan(wilson(0, 0).low)


def test_wilson_covers_as_often_as_it_says() -> None:
    # Exact: the sum of the binomial probabilities of the outcomes whose interval holds the truth.
    n, share = 100, 0.3
    held = sum(
        math.comb(n, k) * share**k * (1 - share) ** (n - k)
        for k in range(n + 1)
        if wilson(k, n).low <= share <= wilson(k, n).high
    )
    assert held == pytest.approx(0.95, abs=0.015)


def test_bootstrap_is_the_normal_interval_where_theory_says_so() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(2000) < 0.7, rng.random(2000) < 0.6
    boot, normal = paired_bootstrap(first, second, seed=3), paired_normal(first, second)
    assert boot.value == normal.value == pytest.approx(first.mean() - second.mean())
    assert boot.low == pytest.approx(normal.low, abs=0.002)
    assert boot.high == pytest.approx(normal.high, abs=0.002)
    assert boot == paired_bootstrap(first, second, seed=3)
    assert boot != paired_bootstrap(first, second, seed=4)


def test_bootstrap_of_many_values_agrees_with_that_of_few() -> None:
    # The same items, told apart by a hair: the two ways of drawing must give one law.
    rng = np.random.default_rng(1)
    first = (rng.random(400) < 0.5).astype(float)
    few = paired_bootstrap(first, np.zeros(400), seed=0)
    many = paired_bootstrap(first + 1e-9 * np.arange(400), np.zeros(400), seed=0)
    assert many.low == pytest.approx(few.low, abs=0.004)
    assert many.high == pytest.approx(few.high, abs=0.004)


def test_bootstrap_does_not_depend_on_the_order_of_items() -> None:
    rng = np.random.default_rng(2)
    first, second, order = rng.random(300), rng.random(300), rng.permutation(300)
    straight, mixed = paired_bootstrap(first, second, seed=0), paired_bootstrap(first[order], second[order], seed=0)
    assert (straight.low, straight.high) == pytest.approx((mixed.low, mixed.high))


def test_bootstrap_covers_the_true_difference() -> None:
    rng = np.random.default_rng(4)
    trials, truth, held = 400, 0.10, 0
    for trial in range(trials):
        interval = paired_bootstrap(rng.random(200) < 0.60, rng.random(200) < 0.50, seed=trial, resamples=1000)
        held += interval.low <= truth <= interval.high
    assert 0.92 <= held / trials <= 0.98


def test_pairing_must_be_exact() -> None:
    with pytest.raises(ValueError, match="one length"):
        paired_bootstrap([1.0, 0.0], [1.0], seed=0)


def test_mcnemar_is_the_sign_test() -> None:
    # 12 wins and 3 losses: 2 * (1 + 15 + 105 + 455) / 2^15.
    first = [1] * 12 + [0] * 3 + [1] * 50 + [0] * 40
    second = [0] * 12 + [1] * 3 + [1] * 50 + [0] * 40
    assert mcnemar(first, second) == pytest.approx(2 * 576 / 2**15)
    assert mcnemar(second, first) == mcnemar(first, second)
    assert mcnemar([1, 0], [1, 0]) == 1.0
    with pytest.raises(ValueError, match="0 and 1"):
        mcnemar([0.5], [1.0])


def test_over_seeds_is_student_s_t() -> None:
    # Means 7, 8 and 9: t(0.975, 2) = 4.30265, standard error 1 / sqrt(3).
    interval = over_seeds([[7.0, 7.0], [8.0, 8.0], [9.0, 9.0]])
    assert interval.value == 8.0
    assert interval.high - interval.value == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    with pytest.raises(ValueError, match="two seeds"):
        over_seeds([[1.0, 2.0]])


def test_two_way_bootstrap_holds_the_variance_of_both_factors() -> None:
    rng = np.random.default_rng(5)
    seeds, items = rng.normal(0, 0.05, (40, 1)), rng.normal(0, 1.0, (1, 500))
    interval = over_seeds_and_items(0.3 + seeds + items, seed=0, resamples=4000)
    sigma = math.sqrt(seeds.var() / 40 + items.var() / 500)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * sigma, rel=0.06)
    assert interval.value == pytest.approx(0.3 + seeds.mean() + items.mean())


def test_calibration_error_of_known_cases() -> None:
    # Ten answers at 0.9 of which seven are right, ten at 0.5 of which five are right.
    confidence = [0.9] * 10 + [0.5] * 10
    correct = [1] * 7 + [0] * 3 + [1] * 5 + [0] * 5
    bins = calibration_bins(confidence, correct, bins=2)
    assert [(b.n, b.confidence, b.accuracy) for b in bins] == [(10, 0.5, 0.5), (10, pytest.approx(0.9), 0.7)]
    assert ece(bins) == pytest.approx(0.1)
    assert math.isnan(ece(calibration_bins([], [])))


def test_calibration_does_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(6)
    confidence, correct, order = rng.integers(0, 4, 100) / 4, rng.random(100) < 0.5, rng.permutation(100)
    assert ece(calibration_bins(confidence, correct)) == pytest.approx(
        ece(calibration_bins(confidence[order], correct[order]))
    )


def test_a_calibrated_model_has_little_error() -> None:
    rng = np.random.default_rng(7)
    confidence = rng.random(20_000)
    assert ece(calibration_bins(confidence, rng.random(20_000) < confidence)) < 0.02


def test_verdict_is_decided_by_the_interval_alone() -> None:
    assert verdict(Interval(0.1, 0.01, 0.2)) == "helps"
    assert verdict(Interval(-0.1, -0.2, -0.01)) == "does not help"
    assert verdict(Interval(0.0, 0.0, 0.0)) == "inconclusive"
    assert verdict(Interval(-0.1, -0.2, 0.0)) == "does not help"
    assert verdict(Interval(math.nan, math.nan, math.nan)) == "inconclusive"
    assert verdict(Interval(0.1, -0.01, 0.2)) == "inconclusive"
    helps, fails, open_ = Interval(0.1, 0.01, 0.2), Interval(-0.1, -0.2, -0.01), Interval(0.1, -0.01, 0.2)
    assert [verdict(helps, other) for other in (helps, open_, fails)] == ["helps", "inconclusive", "inconclusive"]
    assert verdict(fails, fails) == "does not help"


# Right by the first alone, by the second alone, by both, by none.
PAIRED = {
    "none of 23, twice": (0, 0, 0, 23),
    "all of 23, twice": (0, 0, 23, 0),
    "half of 23, the same half": (0, 0, 11, 12),
    "one item": (0, 0, 1, 0),
    "one item that tells them apart": (1, 0, 0, 0),
    "one of 44": (1, 0, 43, 0),
    "one each of 44": (1, 1, 40, 2),
    "12 against 2 of 50": (12, 2, 36, 0),
    "2 against 12 of 50": (2, 12, 36, 0),
    "all against none": (20, 0, 0, 0),
    "none against all": (0, 20, 0, 0),
    "three of a thousand": (3, 0, 500, 497),
    "many": (150, 50, 400, 400),
}


def metrics(wins: int, losses: int, both: int, none: int) -> tuple[list[int], list[int]]:
    first = [1] * wins + [0] * losses + [1] * both + [0] * none
    return first, [0] * wins + [1] * losses + [1] * both + [0] * none


def score_of(wins: int, losses: int, n: int, delta: float) -> float:
    """Tango's statistic, its nuisance parameter found by looking at all of its values."""
    q = np.linspace(max(0.0, -delta), (1 - delta) / 2, 400_001)[1:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [(wins, q + delta), (losses, q), (n - wins - losses, 1 - 2 * q - delta)]
        likelihood = sum(count * np.log(share) for count, share in terms if count)
    q_likeliest = q[np.nanargmax(likelihood)]
    return (wins - losses - n * delta) / math.sqrt(n * (2 * q_likeliest + delta * (1 - delta)))


@pytest.mark.parametrize("what", PAIRED)
def test_the_score_interval_of_paired_proportions(what: str) -> None:
    """It holds the difference, is not empty, is mirrored, and at its ends the test is just not refused."""
    wins, losses, both, none = PAIRED[what]
    first, second = metrics(wins, losses, both, none)
    n, found, mirrored = len(first), paired_score(first, second), paired_score(second, first)
    assert found.value == (wins - losses) / n
    assert -1 <= found.low <= found.value <= found.high <= 1 and found.high - found.low > 0.001
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    for end, sign in ((found.low, 1), (found.high, -1)):
        if abs(end) < 1:
            assert sign * score_of(wins, losses, n, end) == pytest.approx(1.959964, abs=2e-3)


def test_the_score_interval_in_closed_form() -> None:
    z2 = 1.959964**2
    same = paired_score([0] * 23, [0] * 23)
    assert (same.low, same.high) == pytest.approx((-z2 / (23 + z2), z2 / (23 + z2)), abs=1e-6)
    assert same.high == pytest.approx(unseen(23)) == pytest.approx(0.1431, abs=5e-5)
    assert verdict(same) == "inconclusive"
    every = paired_score([1] * 20, [0] * 20)
    assert (every.low, every.high) == pytest.approx(((20 - z2) / (20 + z2), 1.0), abs=1e-6)
    assert math.isnan(paired_score([], []).low)
    with pytest.raises(ValueError, match="0 and 1"):
        paired_score([0.5], [1.0])


def test_the_score_interval_covers_as_often_as_it_says() -> None:
    # Exact: the sum of the trinomial probabilities of the outcomes whose interval holds the truth.
    n, first_alone, second_alone = 30, 0.15, 0.05
    held = 0.0
    for wins in range(n + 1):
        for losses in range(n + 1 - wins):
            found = paired_score(*metrics(wins, losses, n - wins - losses, 0))
            if found.low <= first_alone - second_alone <= found.high:
                ways = math.comb(n, wins) * math.comb(n - wins, losses)
                held += ways * first_alone**wins * second_alone**losses * 0.8 ** (n - wins - losses)
    assert held == pytest.approx(0.95, abs=0.02)


EMPTY = {
    "no difference anywhere": [[0.0] * 23] * 3,
    "the same difference everywhere": [[1.0] * 23] * 3,
    "the other way": [[-1.0] * 23] * 3,
    "a metric between 0 and 1": [[0.25] * 23] * 3,
    "two seeds": [[0.0] * 23] * 2,
    "ten seeds": [[0.0] * 23] * 10,
    "one item": [[0.0]] * 3,
    "two items": [[0.0] * 2] * 3,
    "a thousand items": [[0.0] * 1000] * 3,
    "a small difference": [[0.01] * 23] * 3,
    "half of it": [[0.5] * 23] * 5,
    "seeds that differ in items and not in their means": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
}


@pytest.mark.parametrize("what", EMPTY)
def test_no_interval_is_a_point(what: str) -> None:
    table = np.array(EMPTY[what])
    found = [over_seeds(table), over_seeds_and_items(table, seed=0, resamples=200)]
    if len(set(table[0])) == 1:
        found.append(paired_bootstrap(table[0], np.zeros(table.shape[1]), seed=0, resamples=200))
    for interval in found:
        assert interval.high - interval.low > 0.003 and -1 <= interval.low <= interval.value <= interval.high <= 1
        if not table.any():
            assert verdict(interval) == "inconclusive"
            assert interval.high == pytest.approx(unseen(table.shape[1]))
