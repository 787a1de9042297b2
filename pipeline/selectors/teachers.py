"""Selectors among teachers: whose answers count, and how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import PositiveFloat, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.selector import Budget, Candidates, Decision, Selector, Sql, Text, Vector, selector
from pipeline.selectors.rank import best

Measure = Literal["parc", "h_score", "knn", "leep"]


@selector(random=False)
def distill_weighted(*, similarity: Sql, power: PositiveFloat = 12.0) -> Selector:
    """All teachers' answers, weighted by how alike their tasks are to ours: similarity ** power, 1 in sum a prompt.

    `similarity` is of the teacher that gave the answer; below 0 it teaches nothing. Needs `one_per_prompt: false`;
    where one answer of a prompt is kept it is that of the nearest teacher, with weight 1.

    Paper: Borup et al. 2023 (DistillWeighted and DistillNearest, arXiv 2304.12314): a teacher's share grows with
    max(similarity, 0) ** power; the power of 12 is theirs as far as we could read.
    Differs: weights are of answers and not of pseudo-labels, and all teachers share the student's head.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        return weighted(candidates, budget, candidates[similarity], power)

    return select


@selector(random=False)
def task_similarity(
    *,
    vectors: dict[str, Vector],
    label: Text = "domain",
    labelled: Sql = "true",
    teacher: Text = "entry",
    measure: Measure = "parc",
    items: PositiveInt = 1000,
    power: PositiveFloat = 12.0,
) -> Selector:
    """All teachers' answers, weighted as `distill_weighted` does, by a similarity that is measured from what each
    teacher makes of the same labelled answers.

    `vectors` says what that is, by teacher: `{large: large_states.vector, small: small_states.vector}`, of
    `likelihood.embedding`, or for `leep` of `confidence.distribution`. A `label` is what is alike where it is equal;
    `labelled` are the answers that are looked at, such as `entry = 'solutions'`, the first `items` of them by id.

    Paper: Borup et al. 2023 (DistillWeighted, arXiv 2304.12314); the measures are PARC (Bolya et al. 2021, arXiv
    2111.06977), the H-score (Bao et al. 2019, arXiv 2212.10082), the nearest neighbour's label, and LEEP (Nguyen et al.
    2020, arXiv 2002.12462).
    Differs: PARC is of all components of the features, where theirs is of 32 that are found by chance, and pairs whose
    labels differ alike are ties, which theirs orders by errors of rounding; LEEP counts as exp(LEEP), since a share
    needs what is above 0.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        names = candidates[label]
        given = (candidates[labelled] > 0) & np.array([name is not None for name in names], bool)
        value = np.full(len(candidates), np.nan)
        for one, vector in vectors.items() if len(candidates) else ():
            there = given & np.isfinite(candidates[vector][:, 0])
            at = np.flatnonzero(there)[:items]
            found, labels = np.unique(names[at], return_inverse=True)
            if len(found) < 2:
                raise Refused(
                    f"the labelled answers with {vector!r} have {len(found)} different labels ({label}, {labelled}); "
                    f"the similarity of {one} needs two at least"
                )
            value[candidates[teacher] == one] = MEASURES[measure](candidates[vector][at].astype(np.float64), labels)
        return weighted(candidates, budget, value, power)

    return select


def weighted(candidates: Candidates, budget: Budget, similarity: np.ndarray, power: float) -> Decision:
    """The most similar that fit, each with its share of its prompt."""
    found = best(candidates, budget, similarity, "similar", {"unlike": similarity <= 0})
    _, prompt = np.unique(candidates.prompts, return_inverse=True)
    # Over the greatest of a prompt, so that no power of small numbers vanishes.
    most = np.zeros(len(similarity))
    np.maximum.at(most, prompt[found.kept], similarity[found.kept])
    weight = np.where(found.kept, similarity / np.where(most > 0, most, 1.0)[prompt], 0.0) ** power
    total = np.bincount(prompt, weight, len(similarity))[prompt]
    return replace(found, weight=np.divide(weight, total, out=np.zeros(len(similarity)), where=found.kept))


def parc(features_ND: np.ndarray, labels_N: np.ndarray) -> float:
    """Spearman's correlation, over pairs of items, of how unlike their features are and whether their labels differ."""
    from scipy.stats import spearmanr

    pairs = np.triu_indices(len(features_ND), 1)
    standard_ND = _scaled(features_ND - features_ND.mean(0), 0)
    profiles_ND = _scaled(standard_ND - standard_ND.mean(1, keepdims=True), 1)
    unlike, differ = 1 - (profiles_ND @ profiles_ND.T)[pairs], (labels_N[:, None] != labels_N)[pairs]
    return float(spearmanr(unlike, differ).statistic) if np.ptp(unlike) > 0 else 0.0


def _scaled(centred: np.ndarray, axis: int) -> np.ndarray:
    """Vectors along an axis, each at length 1; those of length 0 stay."""
    length = np.linalg.norm(centred, axis=axis, keepdims=True)
    return centred / np.where(length > 0, length, 1.0)


def h_score(features_ND: np.ndarray, labels_N: np.ndarray) -> float:
    """The trace of the inverse covariance of the features times that of their labels' means: 0 to the number of
    labels less 1."""
    means = np.stack([features_ND[labels_N == label].mean(0) for label in range(labels_N.max() + 1)])
    within, between = (np.atleast_2d(np.cov(rows.T)) for rows in (features_ND, means[labels_N]))
    return float(np.trace(np.linalg.pinv(within, rcond=1e-12, hermitian=True) @ between))


def knn(features_ND: np.ndarray, labels_N: np.ndarray) -> float:
    """The share of items whose nearest other, by Euclidean distance, has their label."""
    square = (features_ND**2).sum(1)
    apart = square + square[:, None] - 2 * features_ND @ features_ND.T
    np.fill_diagonal(apart, np.inf)
    return float((labels_N[apart.argmin(1)] == labels_N).mean())


def leep(probabilities_NK: np.ndarray, labels_N: np.ndarray) -> float:
    """The mean log-likelihood of the labels, where each is told from the teacher's outcomes by how often it comes with
    them: at most 0."""
    joint = np.stack([probabilities_NK[labels_N == label].sum(0) for label in range(labels_N.max() + 1)])
    told = joint / np.where(joint.sum(0) > 0, joint.sum(0), 1.0)
    return float(np.log(np.einsum("nk,nk->n", probabilities_NK, told[labels_N])).mean())


def _likelihood(probabilities_NK: np.ndarray, labels_N: np.ndarray) -> float:
    if (probabilities_NK < 0).any() or (abs(probabilities_NK.sum(1) - 1) > 1e-3).any():
        raise Refused("leep needs distributions: probabilities must not be negative and must sum to 1")
    return float(np.exp(leep(probabilities_NK, labels_N)))


MEASURES: dict[Measure, Callable[[np.ndarray, np.ndarray], float]] = {
    "parc": parc,
    "h_score": h_score,
    "knn": knn,
    "leep": _likelihood,
}
