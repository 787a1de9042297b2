"""Selectors by a number: the best first."""

from __future__ import annotations

import numpy as np

from pipeline.kinds.selector import Budget, Candidates, Decision, Selector, Sql, decide, selector, spend


@selector(random=False)
def top(*, by: Sql) -> Selector:
    """The answers with the highest value of an expression; null is never kept, ties go to the lower id.

    Paper: the selection step of Li et al. 2024 (IFD) and Gu et al. 2025 (MiniPLM), with the macros `ifd(...)` and
    `miniplm(...)` as the expression.
    Differs: an answer that no longer fits the budget is passed over for smaller ones.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        value = candidates[by]
        lacking = np.isnan(value)
        order = np.argsort(-value, kind="stable")
        order = budget.firsts(candidates, order[~lacking[order]])
        kept = spend(order, budget.cost_of(candidates), budget.limit)
        return decide(candidates, budget, kept, "top", {"no_value": lacking})

    return select
