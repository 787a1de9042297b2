"""Selectors among teachers: whose answers count, and how much."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import PositiveFloat

from pipeline.kinds.selector import Budget, Candidates, Decision, Selector, Sql, selector
from pipeline.selectors.rank import best


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
        value = candidates[similarity]
        found = best(candidates, budget, value, "similar", {"unlike": value <= 0})
        _, prompt = np.unique(candidates.prompts, return_inverse=True)
        # Over the greatest of a prompt, so that no power of small numbers vanishes.
        most = np.zeros(len(value))
        np.maximum.at(most, prompt[found.kept], value[found.kept])
        weight = np.where(found.kept, value / np.where(most > 0, most, 1.0)[prompt], 0.0) ** power
        total = np.bincount(prompt, weight, len(value))[prompt]
        return replace(found, weight=np.divide(weight, total, out=np.zeros(len(value)), where=found.kept))

    return select
