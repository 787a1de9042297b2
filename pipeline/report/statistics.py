"""Intervals, tests and calibration: what a difference between two models is worth.

Only numpy: the report must not pay the three seconds that `scipy.stats` takes to import.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Verdict = Literal["helps", "does not help", "inconclusive", "no claim"]
LEVEL = 0.95
# With what chance a number of items or seeds is to decide, if the effect is the one that was seen.
POWER = 0.8
MOST_SEEDS, MOST_ITEMS = 1_000, 10_000_000
RESAMPLES = 10_000
# Below this many different values a resample is drawn as counts of them, which is the same law and far cheaper.
FEW = 64
# A block of resamples holds at most this many draws: 32 MB of indices.
BLOCK = 4_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval; of a difference also `p`, two-sided, of there being none: what the
    interval is the other side of."""

    value: float
    low: float
    high: float
    p: float | None = field(default=None, compare=False)


def verdict(*intervals: Interval) -> Verdict:
    """Whether a difference helps: all its intervals wholly above 0, none of them above 0, or neither.

    An interval that is 0 alone says that nothing was seen, not that there is nothing.
    """
    if all(interval.low > 0 for interval in intervals):
        return "helps"
    if all(interval.low < 0 >= interval.high for interval in intervals):
        return "does not help"
    return "inconclusive"


def wilson(successes: float, n: int, level: float = LEVEL) -> Interval:
    """A share with its score interval.

    Source: Wilson 1927, without continuity correction; recommended over the textbook interval by Brown, Cai and
    DasGupta 2001. It lies within [0, 1] and does not collapse at 0 and n.
    """
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    z, share = _z(level), successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and at n one end is exact; rounding must not put it beside.
    return Interval(share, 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def paired_score(first: ArrayLike, second: ArrayLike, level: float = LEVEL) -> Interval:
    """The mean of first - second over the same items, both 0 or 1, with the score interval of paired proportions.

    Source: Tango 1998 (Statistics in Medicine 17, 891-908). Its ends are the differences that a test does not refuse,
    the variance taken at each of them: it lies within [-1, 1], and is not empty where no item tells the two apart.
    """
    difference = _paired(first, second)
    if not np.isin(difference, (-1.0, 0.0, 1.0)).all():
        raise ValueError("paired_score needs metrics of 0 and 1")
    n, wins, losses = len(difference), int((difference > 0).sum()), int((difference < 0).sum())
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    value, z = (wins - losses) / n, _z(level)

    def refused(delta: float) -> bool:
        # q: how often the second alone is right, likeliest if the difference were delta; a root of a q^2 + b q + c.
        a, b, c = 2 * n, (2 * n - wins + losses) * delta - wins - losses, -losses * delta * (1 - delta)
        q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = n * (2 * q + delta * (1 - delta))
        return (wins - losses - n * delta) ** 2 > z * z * max(variance, 0.0)

    p = _two_sided((wins - losses) / math.sqrt(wins + losses)) if wins + losses else 1.0
    return Interval(value, -_edge(lambda d: refused(-d), -value), _edge(refused, value), p)


def _edge(refused: Callable[[float], bool], value: float) -> float:
    """Where a test begins to refuse, between a value that it does not and 1."""
    low, high = value, 1.0
    if not refused(high):
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if refused(middle) else (middle, high)
    return (low + high) / 2


def paired_bootstrap(
    first: ArrayLike, second: ArrayLike, seed: int, *, level: float = LEVEL, resamples: int = RESAMPLES
) -> Interval:
    """The mean of first - second over the same items, with the percentile interval over resampled items.

    Source: Efron and Tibshirani 1993, chapter 13 (percentile interval); paired over items as in Koehn 2004.
    It says how the difference would move with other items, not with other training seeds. Where all items have one
    difference, no resample tells of another, and it is as wide as `unseen` says.
    """
    difference = _paired(first, second)
    if len(difference) == 0:
        return Interval(math.nan, math.nan, math.nan)
    rng = np.random.Generator(np.random.Philox(seed))
    means = _resampled_means(difference, resamples, rng)
    return _not_empty(float(difference.mean()), means, len(difference), level)


def unseen(n: int, level: float = LEVEL) -> float:
    """How large a difference may be that none of n items shows, of metrics from 0 to 1: what the score interval
    (`paired_score`) is where no item tells the two apart."""
    return _z(level) ** 2 / (n + _z(level) ** 2)


def _not_empty(value: float, means: np.ndarray, n: int, level: float) -> Interval:
    """The interval of resampled means, or where it is a point what n items may have left unseen."""
    low, high = (float(end) for end in np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))
    if high - low > 1e-12:
        beyond = min((means <= 0).sum(), (means >= 0).sum())
        return Interval(value, low, high, min(1.0, 2 * (int(beyond) + 1) / (len(means) + 1)))
    return _point(value, n, level)


def _point(value: float, n: int, level: float) -> Interval:
    size = min(abs(value), 1 - 1e-12)
    low, high = max(-1.0, value - unseen(n, level)), min(1.0, value + unseen(n, level))
    return Interval(value, low, high, _two_sided(math.sqrt(n * size / (1 - size))))


def paired_normal(first: ArrayLike, second: ArrayLike, level: float = LEVEL) -> Interval:
    """The mean of first - second over the same items, with the interval of the central limit theorem.

    Source: Miller 2024 (Adding error bars to evals): the standard error of paired differences.
    """
    difference = _paired(first, second)
    mean, half = float(difference.mean()), _z(level) * float(difference.std(ddof=1)) / math.sqrt(len(difference))
    return Interval(mean, mean - half, mean + half)


def mcnemar(first: ArrayLike, second: ArrayLike) -> float:
    """Two-sided p that two models are right equally often, from the items where only one of them is.

    Source: McNemar 1947, exact form: binomial with probability 1/2 over the discordant items.
    """
    difference = _paired(first, second)
    if not np.isin(difference, (-1.0, 0.0, 1.0)).all():
        raise ValueError("mcnemar needs metrics of 0 and 1")
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    n, k = wins + losses, min(wins, losses)
    tail = sum(math.comb(n, i) for i in range(k + 1))
    return min(1.0, 2 * tail / 2**n) if n else 1.0


def over_seeds(differences: ArrayLike, level: float = LEVEL) -> Interval:
    """The mean over seeds and items, with Student's t interval over the means of the seeds.

    differences: [S, N], one row per training seed, first - second on item n; S at least 2. The items are taken as
    fixed. Source: Student 1908; Bouthillier et al. 2021 for seeds as the unit of repetition. Seeds that do not differ
    at all say nothing of how they may differ; the interval is then what the items leave unseen.
    """
    from scipy.special import stdtr, stdtrit

    table = _seeds_by_items(differences)
    means = table.mean(axis=1)
    if len(means) < 2:
        raise ValueError("an interval over seeds needs at least two seeds")
    t = float(stdtrit(len(means) - 1, (1 + level) / 2))
    mean, error = float(means.mean()), float(means.std(ddof=1)) / math.sqrt(len(means))
    if t * error <= 1e-12:
        return _point(mean, table.shape[1], level)
    p = 2 * float(stdtr(len(means) - 1, -abs(mean) / error))
    return Interval(mean, mean - t * error, mean + t * error, p)


def over_seeds_and_items(
    differences: ArrayLike, seed: int, *, level: float = LEVEL, resamples: int = RESAMPLES
) -> Interval:
    """The mean over seeds and items, with the percentile interval when both are resampled independently.

    differences: [S, N] as in `over_seeds`. Source: Owen 2007 (the pigeonhole bootstrap) for two crossed factors.
    With few seeds it is too narrow, because the seeds' variance is estimated from them: report it beside `over_seeds`.
    """
    table = _seeds_by_items(differences)
    seeds, items = table.shape
    # Items with the same outcome in every seed are drawn as one count, which is the same law and far cheaper.
    columns, counts = np.unique(table, axis=1, return_counts=True)
    rng = np.random.Generator(np.random.Philox(seed))
    means = np.empty(resamples)
    block = max(1, BLOCK // len(counts))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=size) / seeds
        by_item = rng.multinomial(items, counts / items, size=size) / items
        means[start : start + size] = np.einsum("rn,rn->r", by_seed @ columns, by_item)
    return _not_empty(float(table.mean()), means, items, level)


def holm(values: Sequence[float]) -> list[float]:
    """The p-values of several claims, raised so that none of those at or below 0.05 is false with a chance of 0.05.

    Source: Holm 1979 (A simple sequentially rejective multiple test procedure). The k-th smallest of m is multiplied by
    m - k + 1, and is no smaller than the one before it; nothing is asked of how the claims depend on each other.
    """
    raised, least = [1.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        raised[place] = least
    return raised


def items_needed(interval: Interval, n: int, alpha: float) -> int | None:
    """How many items would find the effect that n showed, at this level and with the chance `POWER`; None if too many
    to name, or if there is no effect.

    Source: Cohen 1988, the normal approximation; the standard error is taken from the interval.
    """
    error = (interval.high - interval.low) / (2 * _z(LEVEL))
    if interval.value == 0:
        return None
    wanted = n * ((_z(1 - alpha) + NormalDist().inv_cdf(POWER)) * error / interval.value) ** 2
    return math.ceil(wanted) if wanted <= MOST_ITEMS else None


def seeds_needed(over: Interval, seeds: int, alpha: float) -> int | None:
    """The same for seeds, by Student's t; `over` is the interval over so many seeds."""
    from scipy.special import stdtrit

    spread = (over.high - over.low) / (2 * float(stdtrit(seeds - 1, (1 + LEVEL) / 2))) * math.sqrt(seeds)
    for wanted in range(2, MOST_SEEDS + 1):
        t = float(stdtrit(wanted - 1, 1 - alpha / 2)) + float(stdtrit(wanted - 1, POWER))
        if t * spread / math.sqrt(wanted) <= abs(over.value) and over.value:
            return wanted
    return None


@dataclass(frozen=True)
class Bin:
    """Answers of like confidence: how sure the model was, how often it was right."""

    n: int
    confidence: float
    accuracy: float


def calibration_bins(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> list[Bin]:
    """Answers in order of confidence, cut into bins of equal size.

    Source: Nguyen and O'Connor 2015 (equal-mass bins). Differs: answers of equal confidence share their mean
    correctness, so that the order of rows cannot decide which bin a right answer falls into.
    """
    sure, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if sure.shape != right.shape:
        raise ValueError(f"confidence and correct have different shapes: {sure.shape} and {right.shape}")
    values, group, counts = np.unique(sure, return_inverse=True, return_counts=True)
    right = (np.bincount(group, right, len(values)) / counts)[group]
    order = np.argsort(sure, kind="stable")
    cuts = [c for c in np.array_split(order, bins) if len(c)]
    return [Bin(len(c), float(sure[c].mean()), float(right[c].mean())) for c in cuts]


def ece(bins: Sequence[Bin]) -> float:
    """Expected calibration error: |accuracy - confidence| over bins, weighted by their sizes; nan without any.

    Source: Naeini et al. 2015. On equal-mass bins it is the ACE of Nixon et al. 2019 for the top answer.
    """
    total = sum(b.n for b in bins)
    return sum(b.n * abs(b.accuracy - b.confidence) for b in bins) / total if total else math.nan


def ece_interval(confidence: ArrayLike, correct: ArrayLike, seed: int, *, bins: int = 10) -> Interval:
    """The calibration error with the percentile interval over resampled answers, in bins of these answers.

    Source: Efron and Tibshirani 1993, chapter 13; what a bin sums to in a resample is drawn from its normal law.
    The error of perfectly calibrated answers is above 0 too, the more so the fewer they are: beside that of another
    model the interval says who is better, and not whether it is 0.
    """
    sure, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    n = len(sure)
    if not n:
        return Interval(math.nan, math.nan, math.nan)
    misses = (right - sure)[np.argsort(sure, kind="stable")]
    cuts = np.linspace(0, n, min(bins, n) + 1).astype(int)[:-1]
    sums, squares = (np.add.reduceat(of, cuts) for of in (misses, misses**2))
    noise = np.random.Generator(np.random.Philox(seed)).standard_normal((RESAMPLES, len(cuts)))
    low, high = np.quantile(np.abs(sums + np.sqrt(squares) * noise).sum(1) / n, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = ece(calibration_bins(sure, right, bins))
    return Interval(value, min(float(low), value), max(float(high), value))


def _two_sided(z: float) -> float:
    return 2 * NormalDist().cdf(-abs(z))


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def _paired(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"paired values must be two vectors of one length, not {a.shape} and {b.shape}")
    return a - b


def _seeds_by_items(differences: ArrayLike) -> np.ndarray:
    table = np.asarray(differences, np.float64)
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"differences must be [seeds, items] and not empty; their shape is {table.shape}")
    return table


def _resampled_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= FEW:
        return rng.multinomial(n, counts / n, size=resamples) @ distinct / n
    ordered = np.sort(values)
    block = max(1, BLOCK // n)
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    return np.concatenate([ordered[rng.integers(0, n, size=(size, n))].mean(axis=1) for size in sizes])
