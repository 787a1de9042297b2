"""Selectors by domain: a share of the budget for each, and inside a domain the surest answers first."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.errors import Refused
from pipeline.kinds.selector import (
    Budget,
    Candidates,
    Decision,
    Gaps,
    Selector,
    Sql,
    decide,
    selector,
    shares,
    shuffled,
    spend,
)


@selector(random=True)
def coverage(*, by: Sql, prefer: float) -> Selector:
    """An equal share of the budget for every domain; what a domain cannot use passes on to the others.

    Of a prompt's answers only those with its highest value of `by` count: with `agreement.score`, the majority's.
    Inside a domain, prompts with at least `prefer` come first, in random order, the others after them in descending
    order; the answer is a random one of those that count. `where` sets the value below which nothing is used.

    Paper: none; Wang et al. 2023 (self-consistency) as a filter, without starving what the teacher is unsure of.
    Differs: nothing.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        return _spread(candidates, budget, seed, candidates[by], prefer, np.broadcast_to(1.0, len(candidates)))

    return select


@selector(random=True)
def gaps(
    *, gaps: Gaps, by: Sql = "1", prefer: float = 0.0, floor: Annotated[float, Field(ge=0, le=1)] = 0.0
) -> Selector:
    """A share for every domain by its weight in a table of gaps; `floor` is cut equally first.

    Inside a domain as in `mixture.coverage`; without `by`, in random order.

    Paper: Liu et al. 2024 (DDK), sampling by domain weight.
    Differs: answers are chosen once, within a budget, and not drawn anew for every interval of the training.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        weight = candidates[gaps]
        missing = sorted(set(candidates.domains[np.isnan(weight)]))
        if missing:
            raise Refused(
                f"the gaps {gaps!r} have no weight for {', '.join(missing)}. Let `where` leave these domains out, or "
                f"let both models of gaps.{gaps} answer them."
            )
        return _spread(candidates, budget, seed, candidates[by], prefer, _mixed(candidates, weight, floor))

    return select


@selector(random=True)
def weighted(
    *, weight: Sql, by: Sql = "1", prefer: float = 0.0, floor: Annotated[float, Field(ge=0, le=1)] = 0.0
) -> Selector:
    """A share for every domain by the mean of `weight` over its answers, where that is above 0; equal ones if none is.

    `floor` is cut equally first; inside a domain as in `mixture.coverage`, without `by` in random order. An expression
    sees all answers, as `avg(verified.score) FILTER (WHERE entry = 'student') OVER (PARTITION BY domain)` does, so a
    mixture by how far a student is behind needs no table of gaps.

    Paper: Liu et al. 2024 (DDK, arXiv 2407.16154), sampling by domain weight, for a weight of any kind.
    Differs: answers are chosen once, within a budget, and not drawn anew for every interval of the training.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        value, mean = candidates[weight], np.zeros(len(candidates))
        for domain in sorted(set(candidates.domains)):
            own = candidates.domains == domain
            if np.isnan(value[own]).all():
                raise Refused(f"`weight` is null for every answer of {domain}; let `where` leave that domain out")
            mean[own] = max(np.nanmean(value[own]), 0.0)
        mean = mean if mean.any() else np.ones(len(candidates))
        return _spread(candidates, budget, seed, candidates[by], prefer, _mixed(candidates, mean, floor))

    return select


def _mixed(candidates: Candidates, weight: np.ndarray, floor: float) -> np.ndarray:
    """Each answer's share of the budget that its domain has, by a weight that is the same in all of a domain."""
    by_domain = dict(zip(candidates.domains, weight, strict=True))
    total = sum(by_domain[d] for d in sorted(by_domain)) or 1.0
    return floor / max(len(by_domain), 1) + (1 - floor) * weight / total


def _spread(
    candidates: Candidates, budget: Budget, seed: int, value: np.ndarray, prefer: float, weight: np.ndarray
) -> Decision:
    """The budget cut over domains by weight, and filled in each by value up to `prefer`, then by chance."""
    lacking, prompt = np.isnan(value), candidates.prompt
    best = np.full(1 + prompt.max(initial=-1), -np.inf)
    np.fmax.at(best, prompt, value)
    outvoted = value < best[prompt]

    first, second = shuffled(candidates, budget, seed)
    open_ = np.flatnonzero(~(lacking | outvoted | (weight <= 0)))
    order = open_[np.lexsort((second[open_], first[open_], -np.minimum(value[open_], prefer)))]
    del first, second, open_
    order = budget.firsts(candidates, order)

    cost = budget.cost_of(candidates)
    of = {d: order[candidates.domains[order] == d] for d in sorted(set(candidates.domains[order]))}
    weights = {d: float(weight[positions[0]]) for d, positions in of.items()}
    share = shares(weights, {d: float(cost[positions].sum()) for d, positions in of.items()}, budget.limit)
    kept = [i for d, positions in of.items() for i in spend(positions, cost, share[d])]
    # Rows are whole, so each domain leaves less than one of its share; together that may still hold some.
    left = np.ones(len(candidates), bool)
    left[kept] = False
    kept += spend(order[left[order]], cost, budget.limit - cost[kept].sum())
    why = np.full(len(candidates), "fallback", object)
    why[value >= prefer] = "preferred"
    return decide(candidates, budget, kept, why, {"outvoted": outvoted, "no_value": lacking})
