"""Laws of every selector: all candidates answered, budgets kept, no order in the input, chance only where declared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipeline.kinds.selector import Budget, Candidates, Decision, Selector, shares
from pipeline.laws import selector as laws
from pipeline.laws.law import Broken
from pipeline.laws.selector import Case, Law, candidates
from pipeline.selectors import mixture, rank, sampling
from tests.laws.ours import held, named, ours

[RANK, *_] = laws.cases(next(method for method in ours("selector") if method.name == "rank.top"))


@pytest.mark.parametrize(("law", "case"), held("selector"), ids=named)
def test_law(law: Law, case: Case) -> None:
    law(case)


def decided(change: Callable[[Candidates, Budget, int, Decision], Decision]) -> Selector:
    """The sound selector, whose decisions are changed."""
    return lambda rows, budget, seed: change(rows, budget, seed, RANK.selector(rows, budget, seed))


def whole(rows: Candidates, budget: Budget, seed: int, found: Decision) -> Decision:
    return replace(found, kept=np.ones(len(rows), bool), weight=np.ones(len(rows)))


def drawn(rows: Candidates, budget: Budget, seed: int, found: Decision) -> Decision:
    kept = np.zeros(len(rows), bool)
    kept[seed % max(len(rows), 1)] = True
    return replace(found, kept=kept, weight=kept.astype(float))


def written(rows: Candidates, budget: Budget, seed: int, found: Decision) -> Decision:
    rows["score"][:] = 0
    return found


BROKEN: dict[str, tuple[Law, Selector]] = {
    "no reason": (
        laws.every_candidate_is_answered,
        decided(lambda r, b, s, d: replace(d, reason=np.full(len(r), "", object))),
    ),
    "the kept alone": (
        laws.every_candidate_is_answered,
        decided(lambda r, b, s, d: Decision(d.kept[d.kept], d.weight[d.kept], d.reason[d.kept])),
    ),
    "everything": (laws.the_budget_is_kept, decided(whole)),
    "nothing": (
        laws.what_is_over_budget_would_not_fit,
        decided(lambda r, b, s, d: Decision(d.kept & False, d.weight * 0, np.full(len(r), "over_budget", object))),
    ),
    "the first always": (laws.an_empty_set_is_decided, lambda r, b, s: Decision(*[np.ones(1, bool)] * 3)),
    "undeclared chance": (laws.the_seed_matters_only_where_it_is_declared, decided(drawn)),
    "in place": (laws.what_it_is_given_stays, decided(written)),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_selector_breaks_a_law(fault: str) -> None:
    law, selector = BROKEN[fault]
    with pytest.raises(Broken):
        law(replace(RANK, selector=selector))


def test_candidates_out_of_order_are_refused() -> None:
    """So a stable sort breaks ties by id, and no selector can see the order of its input."""
    rows = candidates()
    with pytest.raises(ValueError, match="ascending"):
        Candidates(rows.ids[::-1], rows.prompts, rows.domains, rows.tokens, rows.columns)


def test_random_gives_every_prompt_and_every_answer_of_it_the_same_chance() -> None:
    rows = candidates(prompts=8)
    uneven = np.flatnonzero((rows.prompts != b"p000") | (np.cumsum(rows.prompts == b"p000") == 1))
    rows = Candidates(rows.ids[uneven], rows.prompts[uneven], rows.domains[uneven], rows.tokens[uneven], {})
    runs = [sampling.random()(rows, Budget(rows=2), seed).kept for seed in range(800)]
    kept = np.mean(runs, axis=0)
    for prompt in set(rows.prompts):
        of = rows.prompts == prompt
        assert kept[of].sum() == pytest.approx(2 / 8, abs=0.06)
        assert kept[of] == pytest.approx(2 / 8 / of.sum(), abs=0.04)


def test_top_keeps_the_best_sum_of_scores() -> None:
    rows = candidates(prompts=12, siblings=1)
    decision = rank.top(by="score")(rows, Budget(rows=4), 0)
    value = np.nan_to_num(rows["score"], nan=-1.0)
    best = max(value[list(c)].sum() for c in itertools.combinations(range(12), 4))
    assert value[decision.kept].sum() == best
    assert set(decision.reason[np.isnan(rows["score"])]) <= {"no_value"}


def test_coverage_cuts_the_budget_equally_and_passes_on_what_a_domain_cannot_use() -> None:
    n = 90
    names = np.array([f"{i:04d}" for i in range(n)], object)
    domains = np.array(["small"] * 10 + ["one"] * 40 + ["two"] * 40, object)
    rows = Candidates(names, names, domains, np.full(n, 10), {"s": np.full(n, 1.0)})
    kept = mixture.coverage(by="s", prefer=0.5)(rows, Budget(tokens=500), 0).kept
    assert {d: int(kept[domains == d].sum()) for d in set(domains)} == {"small": 10, "one": 20, "two": 20}


def test_coverage_takes_the_sure_before_the_unsure_and_the_majority_before_the_rest() -> None:
    rows = candidates(prompts=30)
    decision = mixture.coverage(by="score", prefer=0.9)(rows, Budget(rows=12), 0)
    score = rows["score"]
    for i in np.flatnonzero(decision.kept):
        assert score[i] == np.nanmax(score[rows.prompts == rows.prompts[i]])
    for domain in set(rows.domains):
        of = rows.domains == domain
        level = {p: np.nanmax(score[rows.prompts == p]) for p in set(rows.prompts[of])}
        taken = {rows.prompts[i] for i in np.flatnonzero(decision.kept & of)}
        assert min(level[p] for p in taken) >= max(min(level[p], 0.9) for p in level.keys() - taken) - 1e-12


def test_gaps_follow_their_weights_and_the_floor() -> None:
    n = 300
    names = np.array([f"{i:04d}" for i in range(n)], object)
    domains = np.array(["a", "b", "c"] * 100, object)
    weight = np.array([0.6, 0.4, 0.0] * 100)
    rows = Candidates(names, names, domains, np.full(n, 1), {"main": weight, "1": np.ones(n)})
    for floor, expected in ((0.0, [60, 40, 0]), (0.3, [52, 38, 10])):
        kept = mixture.gaps(gaps="main", floor=floor)(rows, Budget(tokens=100), 0).kept
        assert [int(kept[domains == d].sum()) for d in "abc"] == expected


def test_shares_spend_the_whole_limit_where_there_is_enough() -> None:
    for weights in itertools.product([0.0, 1.0, 3.0], repeat=3):
        named, available = dict(zip("abc", weights, strict=True)), {"a": 5.0, "b": 50.0, "c": 500.0}
        for limit in (1.0, 60.0, 1000.0, math.inf):
            share = shares(named, available, limit)
            usable = sum(available[d] for d in "abc" if named[d])
            assert sum(share.values()) == pytest.approx(min(limit, usable))
            assert all(share[d] <= available[d] for d in "abc")
