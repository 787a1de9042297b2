"""Selectors of few and hard answers that are reasoned at length."""

from __future__ import annotations

import math

import numpy as np

from pipeline.kinds.selector import Budget, Candidates, Decision, Room, Selector, Sql, decide, selector
from pipeline.tables import ids


@selector(random=True)
def s1(*, length: Sql) -> Selector:
    """A domain by chance, then of its answers a long one: the n-th longest that is left with weight 2 ** -n.

    `length` is what an answer's reasoning is measured by, such as `completion_tokens`. What a small model solves is too
    easy, and for `where` to leave out.

    Paper: Muennighoff et al. 2025 (s1, arXiv 2501.19393), section 2.2: their stage of diversity, after those of quality
    and difficulty.
    Differs: draws stand by the name of the choice; they take the domains of some benchmarks whole before.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        value = candidates[length]
        lacking = np.isnan(value)
        order = np.argsort(-value, kind="stable")
        order = order[~lacking[order]]
        left = {d: order[candidates.domains[order] == d].tolist() for d in sorted(set(candidates.domains[order]))}
        room, kept = Room(candidates, budget, ~lacking), list[int]()
        step = 0
        while left:
            domain = list(left)[int(ids.draw(seed, "domain", step) * len(left))]
            # The n-th of m, from 0, with a weight of 2 ** -n.
            chance = 1 - ids.draw(seed, "answer", step) * (1 - 0.5 ** len(left[domain]))
            i = left[domain].pop(min(int(-math.log2(chance)), len(left[domain]) - 1))
            if room.open[i]:
                kept.append(i)
                room.take(i)
            if not left[domain]:
                del left[domain]
            step += 1
        return decide(candidates, budget, kept, "long", {"no_value": lacking})

    return select
