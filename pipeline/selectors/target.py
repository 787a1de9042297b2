"""Selectors towards a target: answers like those of a task, which stand among the candidates and are not chosen."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.selector import Budget, Candidates, Decision, Selector, Sql, Text, Vector, selector
from pipeline.selectors.diversity import blocks, missing, unit
from pipeline.selectors.rank import best
from pipeline.tables import ids

# As in `diversity`: values that differ by less are the same.
DECIMALS = 10


@selector(random=False)
def less(*, vector: Vector, target: Sql, rates: tuple[float, ...] = (1.0,)) -> Selector:
    """The answers whose gradients help a target most: the sum, over checkpoints, of learning rate times cosine.

    `vector` holds the gradient features of all checkpoints one after another, and `rates` their learning rates, as many
    as there are checkpoints: `vector: list_concat(early.vector, late.vector)`, `rates: [2e-5, 1e-5]`. `target` says
    which rows are the target's; each domain of theirs is a task of its own. Of a task the mean counts, of all tasks the
    greatest.

    Paper: Xia et al. 2024 (LESS, arXiv 2402.04333): sum of rate_i * cos(gradient of the target, of the answer) over
    checkpoints i.
    Differs: the features are given: Adam's direction for an answer, the plain gradient for a target, projected.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        points, given = candidates[vector], candidates[target] > 0
        lacking = missing(points)
        _wanted(candidates, given & ~lacking, target)
        if points.shape[1] % len(rates):
            raise Refused(f"{vector!r} has {points.shape[1]} numbers, which are no {len(rates)} features (`rates`)")
        value = np.full(len(points), np.nan)
        value[~lacking] = influence(points[~lacking], given[~lacking], candidates.domains[~lacking], rates)
        return best(candidates, budget, np.round(value, DECIMALS), "influence", {"target": given})

    return select


def influence(points: np.ndarray, target: np.ndarray, tasks: np.ndarray, rates: Sequence[float]) -> np.ndarray:
    """Of every row on the task that it helps most, [rows]; a rate is a checkpoint's share of `points`' width."""
    names, task = np.unique(tasks[target], return_inverse=True)
    mean = np.eye(len(names))[task] / np.bincount(task)
    found = np.zeros((len(points), len(names)))
    for features, rate in zip(np.split(points, len(rates), axis=1), rates, strict=True):
        aims = np.nan_to_num(unit(features[target].astype(np.float64))).T @ mean
        for block in blocks(points):
            directions = np.nan_to_num(unit(features[block].astype(np.float64)))
            found[block] += rate / sum(rates) * (directions @ aims)
    return found.max(1, initial=-np.inf)


@selector(random=True)
def dsir(
    *,
    text: Text,
    target: Sql,
    ngrams: PositiveInt = 2,
    buckets: PositiveInt = 10_000,
    smoothing: NonNegativeFloat = 0.0,
    least_tokens: NonNegativeInt = 0,
) -> Selector:
    """A sample of answers whose words are spread as the target's are, drawn by importance without replacement.

    `text` is what is compared, such as `content`; `target` says which rows are the target's. The weight of a text is
    the product of its n-grams' probabilities in the target over those in the rest, so a longer one has a more extreme
    weight; texts of fewer than `least_tokens` are left out.

    Paper: Xie et al. 2023 (DSIR, arXiv 2302.03169), hashed n-grams, and the Gumbel top-k trick of section 3.
    Differs: the noise is drawn by the answer's id; their code leaves out texts of fewer than 100 tokens.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        texts, given = candidates[text], candidates[target] > 0
        lacking = np.array([not t for t in texts], bool)
        _wanted(candidates, given & ~lacking, target)
        counts = [hashed(t or "", ngrams, buckets) for t in texts]
        short = np.array([tokens_of(c, ngrams) < least_tokens for c in counts], bool)
        weight = log_weights(counts, given & ~lacking, ~given & ~lacking, buckets, smoothing)
        chance = np.clip(ids.draws(seed, "gumbel", candidates.ids.tolist()), 1e-300, None)
        key = np.where(lacking, np.nan, np.round(weight - np.log(-np.log(chance)), DECIMALS))
        return best(candidates, budget, key, "resampled", {"too_short": short & ~lacking, "target": given})

    return select


def hashed(text: str, ngrams: int, buckets: int) -> np.ndarray:
    """The buckets of a text's words, pairs of words and so on up to `ngrams`."""
    words = re.findall(r"\w+|[^\w\s]+", text.lower())
    return np.array([_bucket(gram, buckets) for gram in _grams(words, ngrams)], np.int64)


def tokens_of(grams: np.ndarray, ngrams: int) -> int:
    """The number of a text's words, from that of its n-grams."""
    return (len(grams) + ngrams * (ngrams - 1) // 2) // ngrams


def _grams(words: Sequence[str], most: int) -> Iterator[str]:
    for n in range(1, most + 1):
        for at in range(len(words) - n + 1):
            yield " ".join(words[at : at + n])


@functools.lru_cache(1 << 20)
def _bucket(gram: str, buckets: int) -> int:
    return int(hashlib.sha256(gram.encode()).hexdigest(), 16) % buckets


def log_weights(
    counts: Sequence[np.ndarray], target: np.ndarray, rest: np.ndarray, buckets: int, smoothing: float
) -> np.ndarray:
    """The logarithm of every text's probability as the target's over that as one of the rest, [n]."""

    def spread(rows: np.ndarray, more: float) -> np.ndarray:
        found = np.full(buckets, more)
        for i in np.flatnonzero(rows):
            np.add.at(found, counts[int(i)], 1)
        return found / max(found.sum(), 1.0)

    ratio = np.log(spread(target, smoothing) + 1e-8) - np.log(spread(rest, 0.0) + 1e-8)
    return np.array([ratio[c].sum() for c in counts])


def _wanted(candidates: Candidates, target: np.ndarray, rule: Sql) -> None:
    if len(candidates) and not target.any():
        raise Refused(f"no answer is one of the target, {rule!r}, and has a value. Let `where` keep the target's rows.")
