"""Selectors by chance: the controls that every other selector is to be compared with."""

from __future__ import annotations

import numpy as np

from pipeline.kinds.selector import Budget, Candidates, Decision, Selector, decide, selector, shuffled, spend


@selector(random=True, control=True)
def random() -> Selector:
    """Uniformly random answers within the budget; with one per prompt, of random prompts.

    Paper: none; the control.
    Differs: nothing.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        first, second = shuffled(candidates, budget, seed)
        order = budget.firsts(candidates, np.lexsort((second, first)))
        return decide(candidates, budget, spend(order, budget.cost_of(candidates), budget.limit), "random")

    return select
