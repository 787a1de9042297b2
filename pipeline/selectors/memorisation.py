"""Selectors by what a student would have by heart, as far as that can be told before it is trained."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.errors import Refused
from pipeline.kinds.selector import Budget, Candidates, Decision, Selector, Sql, decide, selector, shuffled, spend

# Rows that are known not to be remembered count together as so many times those that are.
OTHERS = 3.0
PENALTY = 1e-3
# Probabilities that differ by less are the same: the last bits of an optimum depend on the processor.
DECIMALS = 6


@selector(random=True)
def unlikely(
    *, known: Sql, zlib: Sql, teacher: Sql, base: Sql, most: Annotated[float, Field(gt=0, lt=1)] = 0.5
) -> Selector:
    """Random answers of those that a student is not likely to have by heart: a predicted probability of at most `most`.

    `known` says of some answers, best those of a tenth on which a first student was trained, whether it has them by
    heart (`memorisation.extracted`); null of all others. A logistic regression learns from these how it hangs on bytes
    after compression (`compression.zlib`), and on the mean negative log-probability by the teacher and by the student
    before it learns. Answers that are known by heart, or lack a number, are not kept.

    Paper: Memorization Dynamics in Knowledge Distillation (2026): what is memorised is predicted by zlib entropy, both
    perplexities and the KL between the models, with one memorised row to three others, and left out.
    Differs: of the KL that which the two log-probabilities tell of it; the others are weighted, not drawn.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        features = np.column_stack([candidates[name] for name in (zlib, teacher, base)])
        said = candidates[known]
        lacking = np.isnan(features).any(1)
        by_heart = (said > 0) & ~lacking
        if len(candidates):
            by_heart |= ~lacking & (probability(features, said, ~lacking & ~np.isnan(said), known) > most)
        first, second = shuffled(candidates, budget, seed)
        allowed = np.flatnonzero(~lacking & ~by_heart)
        order = budget.firsts(candidates, allowed[np.lexsort((second[allowed], first[allowed]))])
        kept = spend(order, budget.cost_of(candidates), budget.limit)
        return decide(candidates, budget, kept, "unlikely", {"by_heart": by_heart, "no_value": lacking})

    return select


def probability(features: np.ndarray, said: np.ndarray, told: np.ndarray, known: str) -> np.ndarray:
    """That a row is remembered, [n], from the rows of which it is told."""
    from scipy.optimize import minimize
    from scipy.special import expit

    points, remembered = features[told], said[told] > 0
    if remembered.all() or not remembered.any():
        raise Refused(
            f"`known: {known}` tells of {remembered.sum()} answers that are by heart and of {(~remembered).sum()} that "
            "are not, and a prediction needs some of both. Let the first student learn from more rows, or longer"
        )
    middle, spread = points.mean(0), points.std(0)
    scale = np.where(spread > 0, spread, 1)
    weight = np.where(remembered, 1.0, OTHERS * remembered.sum() / (~remembered).sum())
    given = np.column_stack([(points - middle) / scale, np.ones(len(points))])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = given @ weights
        slope = given.T @ (weight * (expit(logits) - remembered)) / weight.sum() + PENALTY * weights
        value = weight @ (np.logaddexp(0, logits) - remembered * logits) / weight.sum()
        return float(value + PENALTY * weights @ weights / 2), slope

    found = minimize(loss, np.zeros(given.shape[1]), jac=True, method="L-BFGS-B").x
    filled = np.nan_to_num((features - middle) / scale)
    return np.round(expit(filled @ found[:-1] + found[-1]), DECIMALS)
