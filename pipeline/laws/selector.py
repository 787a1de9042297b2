"""Laws of selectors: every candidate is answered, budgets are kept, and chance is drawn by the seed alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np

from pipeline.core.methods import Method
from pipeline.kinds.selector import Budget, Candidates, Decision, Selector, expressions
from pipeline.laws.law import arguments, build, must

# What an argument of each marked type is given: the name of a column of `candidates`.
MARKED = {"number": "score", "vector": "vector", "text": "text", "gaps": "main"}
BUDGETS = [Budget(), Budget(rows=7), Budget(tokens=200), Budget(tokens=200, one_per_prompt=False), Budget(tokens=1)]


@dataclass(frozen=True)
class Case:
    """A selector with arguments."""

    method: Method
    arguments: dict[str, Any]
    selector: Selector

    def __str__(self) -> str:
        return "-".join([self.method.name, *(f"{k}={v}" for k, v in self.arguments.items())])

    def choose(self, rows: Candidates, budget: Budget, seed: int = 3) -> Decision:
        """Its decision about candidates, which have the columns that its arguments name."""
        columns = dict(rows.columns)
        given = self.method.arguments.model_validate(self.arguments).model_dump()
        for expression in expressions(self.method, given, "number").values():
            if expression not in columns:
                columns[expression] = constant(expression, rows)
        columns |= dict.fromkeys(expressions(self.method, given, "text").values(), rows["text"])
        return self.selector(Candidates(rows.ids, rows.prompts, rows.domains, rows.tokens, columns), budget, seed)


def constant(expression: str, rows: Candidates) -> np.ndarray:
    """The column of a default such as `false`, which names no score; one that does is given the scores."""
    try:
        (value,) = duckdb.execute(f"SELECT ({expression})::DOUBLE").fetchall()[0]
    except duckdb.Error:
        return rows["score"]
    return np.full(len(rows), np.nan if value is None else value)


def cases(method: Method) -> Iterator[Case]:
    """A selector with several arguments."""
    return (Case(method, given, build(method, given)) for given in arguments(method, MARKED))


def candidates(seed: int = 0, prompts: int = 20, siblings: int = 4) -> Candidates:
    """Answers with uneven costs, scores with ties and nulls, and vectors that are distributions, some alike."""
    rng = np.random.default_rng(seed)
    n = prompts * siblings
    # Ids are bytes, as `select` gives them.
    names = np.array([f"{i:08x}" for i in rng.choice(2**31, n, replace=False)], bytes)
    prompt = np.array([f"p{i // siblings:03d}" for i in range(n)], bytes)
    domain = np.array([f"d{i // siblings % 3}" for i in range(n)], object)
    score = rng.integers(0, 9, n) / 8
    score[rng.random(n) < 0.1] = np.nan
    vector = rng.dirichlet(np.ones(5), n)
    vector[n // 2 :] = vector[: n - n // 2]
    weight = {"d0": 0.6, "d1": 0.3, "d2": 0.1}
    text = np.array(
        [" ".join(rng.choice(["ash", "beech", "oak", "yew"], rng.integers(0, 9))) or None for _ in range(n)]
    )
    columns = {"score": score, "vector": vector, "text": text, "none": np.zeros(n)}
    columns["main"] = np.array([weight[d] for d in domain])
    tokens = rng.integers(5, 30, n)
    order = np.argsort(names)
    return Candidates(
        names[order], prompt[order], domain[order], tokens[order], {k: c[order] for k, c in columns.items()}
    )


def every_candidate_is_answered(case: Case) -> None:
    """Every candidate is kept or not, with a reason, and has a weight if it is kept. Make it with `decide`."""
    rows = candidates()
    for budget in BUDGETS:
        decision = case.choose(rows, budget)
        sizes = {len(column) for column in (decision.kept, decision.weight, decision.reason)}
        must(sizes == {len(rows)}, f"{len(rows)} candidates, and columns of {sorted(sizes)}")
        must(all(decision.reason), f"under {budget} a reason is empty")
        must(np.array_equal(decision.weight > 0, decision.kept), f"under {budget} weights are not above 0 where kept")


def the_budget_is_kept(case: Case) -> None:
    """The budget is kept, and so is one answer per prompt. Take what fits with `fill`, after `budget.firsts`."""
    rows = candidates()
    for budget in BUDGETS:
        kept = case.choose(rows, budget).kept
        spent = budget.cost_of(rows)[kept].sum()
        must(spent <= budget.limit, f"it keeps {spent} of {budget.limit}")
        if budget.one_per_prompt:
            must(len(set(rows.prompts[kept])) == kept.sum(), "it keeps several answers of one prompt")


def what_is_over_budget_would_not_fit(case: Case) -> None:
    """Nothing that was passed over for want of room would still fit. Give what a share leaves to the others."""
    rows, budget = candidates(), Budget(tokens=200, one_per_prompt=False)
    decision = case.choose(rows, budget)
    left = budget.limit - rows.tokens[decision.kept].sum()
    must(bool((rows.tokens[decision.reason == "over_budget"] > left).all()), f"{left} tokens are left")


def an_empty_set_is_decided(case: Case) -> None:
    """No candidates are a decision about none."""
    rows, nothing = candidates(), np.zeros(0, int)
    columns = {name: column[nothing] for name, column in rows.columns.items()}
    none = Candidates(rows.ids[nothing], rows.prompts[nothing], rows.domains[nothing], rows.tokens[nothing], columns)
    must(len(case.choose(none, Budget(rows=3)).kept) == 0, "it keeps something")


def the_seed_matters_only_where_it_is_declared(case: Case) -> None:
    """The seed decides what is drawn, and nothing else does. Draw with `shuffled`, and say `random=True`; without
    chance, say `random=False`."""
    rows, budget = candidates(), Budget(rows=9)
    kept = [case.choose(rows, budget, seed).kept.tobytes() for seed in (0, 1, 2, 3, 4, 0)]
    must(kept[0] == kept[-1], "one seed gives two decisions")
    many, declared = len(set(kept)) > 1, case.method.traits.get("random")
    must(many == declared, f"it declares random={declared}, and five seeds give {len(set(kept))} decisions")


def what_it_is_given_stays(case: Case) -> None:
    """Candidates are not changed. Copy a column before writing into it."""
    rows, untouched = candidates(), candidates()
    case.choose(rows, Budget(rows=7))
    for name, column in {**rows.columns, "tokens": rows.tokens}.items():
        before = untouched.tokens if name == "tokens" else untouched[name]
        must(np.array_equal(column, before, equal_nan=column.dtype.kind == "f"), f"it writes into {name}")


Law = Callable[[Case], None]
LAWS: dict[Law, Callable[[Case], bool]] = dict.fromkeys(
    (
        every_candidate_is_answered,
        the_budget_is_kept,
        what_is_over_budget_would_not_fit,
        an_empty_set_is_decided,
        the_seed_matters_only_where_it_is_declared,
        what_it_is_given_stays,
    ),
    lambda case: True,
)
