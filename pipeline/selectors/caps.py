"""Selectors with a cap: so much of each domain, so many of each prompt or cluster, the best first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.selector import Budget, Candidates, Decision, Selector, Sql, Vector, decide, selector, spend
from pipeline.selectors.diversity import quantised
from pipeline.selectors.rank import ranked
from pipeline.selectors.redundancy import by_angle

Shares = dict[str, Annotated[float, Field(gt=0, le=1)]]


@selector(random=False)
def per_domain(*, by: Sql, quotas: Shares | None = None) -> Selector:
    """A fixed share of the budget for every domain that `quotas` names, and nothing for others; equal ones without it.

    What a domain cannot use stays unused; `mixture.coverage` and `mixture.gaps` pass it on.

    Paper: none; the mixtures of fixed weights of Touvron et al. 2023 (LLaMA, table 1) and others.
    Differs: nothing.
    """
    if quotas and sum(quotas.values()) > 1 + 1e-9:
        raise Refused(
            f"caps.per_domain: the quotas sum to {sum(quotas.values()):g}; they are shares, at most 1 together"
        )

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        value, cost, domains = candidates[by], budget.cost_of(candidates), sorted(set(candidates.domains))
        share: Mapping[str, float] = quotas or dict.fromkeys(domains, 1 / max(len(domains), 1))
        absent = sorted(share.keys() - set(domains))
        if len(candidates) and absent:
            raise Refused(f"caps.per_domain: no answer is of {', '.join(absent)}; there are {', '.join(domains)}")
        refused = {"no_value": np.isnan(value), "no_quota": ~np.isin(candidates.domains, list(share))}
        order, kept = ranked(candidates, budget, value, refused), list[int]()
        for domain in sorted(share):
            kept += spend(order[candidates.domains[order] == domain], cost, share[domain] * budget.limit)
        over = np.zeros(len(value), bool)
        over[np.setdiff1d(order, kept)] = True
        return decide(candidates, budget, kept, "top", {"over_quota": over, **refused})

    return select


@selector(random=False)
def per_prompt(*, by: Sql, most: PositiveInt) -> Selector:
    """At most so many answers of each prompt, the best; needs `one_per_prompt: false`.

    Paper: Yuan et al. 2023 (RFT, arXiv 2308.01825) and Zelikman et al. 2022 (STaR) train on several right answers to a
    prompt; the cap keeps easy prompts, which have more, from filling the budget.
    Differs: nothing.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        return _capped(candidates, budget, candidates[by], candidates.prompts, most, {})

    return select


@selector(random=False)
def per_cluster(*, by: Sql, vector: Vector, most: PositiveInt, clusters: PositiveInt = 100) -> Selector:
    """At most so many answers of each cluster of directions, the best.

    Paper: none; the 10 of each of 100 clusters of Li et al. 2024 (IFD, arXiv 2308.12032), section 3.1.
    Differs: by value inside a cluster, and not by nearness to its centre; clusters are those of `redundancy.semdedup`.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        points = quantised(candidates[vector])
        lacking = ~np.any(points, 1)
        cluster = np.full(len(points), -1)
        cluster[~lacking] = by_angle(points[~lacking], clusters)[0]
        return _capped(candidates, budget, candidates[by], cluster, most, {"no_vector": lacking})

    return select


def _capped(
    candidates: Candidates,
    budget: Budget,
    value: np.ndarray,
    groups: np.ndarray,
    most: int,
    refused: Mapping[str, np.ndarray],
) -> Decision:
    """The best that fit, `most` of a group."""
    refused = {"no_value": np.isnan(value), **refused}
    cost, left = budget.cost_of(candidates), budget.limit
    _, group = np.unique(groups, return_inverse=True)
    taken, over, kept = np.zeros(len(value), np.int64), np.zeros(len(value), bool), []
    for i in ranked(candidates, budget, value, refused):
        if taken[group[i]] == most:
            over[i] = True
        elif cost[i] <= left:
            kept.append(int(i))
            left -= cost[i]
            taken[group[i]] += 1
    return decide(candidates, budget, kept, "top", {"over_cap": over, **refused})
