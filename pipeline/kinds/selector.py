"""What a selector sees and says: candidates and a budget, to a decision about every one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Protocol, get_args

import numpy as np

from pipeline.core.methods import Method, marker
from pipeline.tables import ids

# Arguments of a selector that `select` evaluates before it calls: `candidates[argument]` is the column. They may also
# be the values of a mapping, `dict[str, Vector]`.
Sql = Annotated[str, "number"]  # an expression over scores_wide, [n], NaN where it is null
Vector = Annotated[str, "vector"]  # the same that is a list, [n, width] float32 in memory or a file, NaN where null
Text = Annotated[str, "text"]  # the same that is a text, [n], None where it is null
Gaps = Annotated[str, "gaps"]  # the name of a gaps instance, [n] the weight of the row's domain


def expressions(method: Method, arguments: Mapping[str, Any], marker: str) -> dict[str, str]:
    """The arguments of a selector that are of one of these types, name -> text; those of a mapping, such as
    `dict[str, Vector]`, each by itself."""
    found: dict[str, str] = {}
    for name, field in method.arguments.model_fields.items():
        *_, inner = None, *get_args(field.annotation)
        if marker in field.metadata:
            found[name] = arguments[name]
        elif marker in getattr(inner, "__metadata__", ()):
            found |= {f"{name}.{key}": text for key, text in arguments[name].items()}
    return found


# Rows that are looked at together.
SOME = 1 << 16


@dataclass(frozen=True)
class Candidates:
    """The answers to choose from, in the order of their ids, so that a stable sort breaks ties by id.

    All are [n]. Ids, of answers and of prompts, are bytes (`tables.ids.names`): a million Python texts are a hundred
    megabytes. Domains are texts, one object for all of one domain.
    """

    ids: np.ndarray
    prompts: np.ndarray
    domains: np.ndarray
    tokens: np.ndarray
    columns: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        if (self.ids[:-1] >= self.ids[1:]).any():
            raise ValueError("candidates must be in ascending order of distinct ids")

    @cached_property
    def prompt(self) -> np.ndarray:
        """The number of each one's prompt among theirs, in the order of the ids, [n]."""
        return ids.ranks(self.prompts)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, argument: str) -> np.ndarray:
        return self.columns[argument]


@dataclass(frozen=True)
class Budget:
    """How much may be kept: rows, or tokens, or everything; and whether a prompt may be kept with several answers."""

    rows: int | None = None
    tokens: int | None = None
    one_per_prompt: bool = True

    @property
    def limit(self) -> float:
        given = self.rows if self.rows is not None else self.tokens
        return math.inf if given is None else given

    def cost_of(self, candidates: Candidates) -> np.ndarray:
        """What each candidate takes of the limit, [n]."""
        return candidates.tokens if self.tokens is not None else np.ones(len(candidates), np.int64)

    def firsts(self, candidates: Candidates, order: np.ndarray) -> np.ndarray:
        """Positions in order of preference, to those of each prompt's first if only one per prompt is allowed."""
        if not self.one_per_prompt:
            return order
        known, firsts = np.zeros(1 + candidates.prompt.max(initial=-1), bool), [order[:0]]
        for some in (order[at : at + SOME] for at in range(0, len(order), SOME)):
            prompt, first = np.unique(candidates.prompt[some], return_index=True)
            firsts.append(some[np.sort(first[~known[prompt]])])
            known[prompt] = True
        return np.concatenate(firsts)


@dataclass(frozen=True)
class Decision:
    """For every candidate: kept or not, its weight in the loss, and why. All are [n]."""

    kept: np.ndarray
    weight: np.ndarray
    reason: np.ndarray


class Selector(Protocol):
    """Decides about every candidate."""

    def __call__(self, candidates: Candidates, budget: Budget, seed: int, /) -> Decision:
        """A decision that keeps the budget; whatever is drawn is drawn by the seed."""
        ...


class Room:
    """What a selector that chooses one by one may still choose: `open`, [n], kept up to date by `take`."""

    def __init__(self, candidates: Candidates, budget: Budget, allowed: np.ndarray) -> None:
        self.cost, self.left = budget.cost_of(candidates), budget.limit
        self.dearest = self.cost.max(initial=0)
        self.open = allowed & (self.cost <= self.left)
        self._prompts = siblings(candidates.prompt) if budget.one_per_prompt else None

    def take(self, i: int) -> None:
        """Spend what one costs, and close it, the other answers of its prompt and what no longer fits."""
        self.left -= self.cost[i]
        self.open[self._prompts(i) if self._prompts else i] = False
        if self.left < self.dearest:
            self.open &= self.cost <= self.left


def siblings(groups: np.ndarray) -> Callable[[int], np.ndarray]:
    """From a place to all places of its group, without a walk over all."""
    _, of = np.unique(groups, return_inverse=True)
    order = np.argsort(of, kind="stable")
    bounds = np.searchsorted(of[order], np.arange(of.max(initial=-1) + 2))
    return lambda i: order[bounds[of[i]] : bounds[of[i] + 1]]


def spend(order: Sequence[int] | np.ndarray, cost: np.ndarray, limit: float) -> list[int]:
    """The positions that fit, taken in order; one that does not fit is passed over for smaller ones."""
    kept: list[int] = []
    for some in (np.asarray(order[at : at + SOME], np.int64) for at in range(0, len(order), SOME)):
        prices = cost[some]
        if prices.sum() > limit:
            fits = np.zeros(len(some), bool)
            for i, price in enumerate(prices.tolist()):
                fits[i] = price <= limit
                limit -= price if fits[i] else 0
            some = some[fits]
        else:
            limit -= prices.sum()
        kept += some.tolist()
    return kept


def decide(
    candidates: Candidates,
    budget: Budget,
    kept: Sequence[int],
    why: str | np.ndarray,
    refused: Mapping[str, np.ndarray] | None = None,
) -> Decision:
    """A decision: `why` for what is kept; the rest is refused by name, or had no place beside what was kept."""
    flags = np.zeros(len(candidates), bool)
    flags[np.asarray(kept, np.int64)] = True
    reason = np.full(len(candidates), "over_budget", object)
    if budget.one_per_prompt:
        taken = np.zeros(1 + candidates.prompt.max(initial=-1), bool)
        taken[candidates.prompt[flags]] = True
        reason[taken[candidates.prompt]] = "another_answer"
    for name, mask in (refused or {}).items():
        reason[mask] = name
    reason[flags] = why if isinstance(why, str) else why[flags]
    return Decision(flags, flags.astype(np.float64), reason)


def shuffled(candidates: Candidates, budget: Budget, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort keys of a random order, [n] each, the stronger first: prompts are equally likely to come early.

    With one answer per prompt the prompt is drawn, then its answer; so a prompt with more candidates has no advantage.
    """
    if not budget.one_per_prompt:
        answer = ids.draws(seed, "answer", candidates.ids)
        return answer, answer
    one = np.zeros(1 + candidates.prompt.max(initial=-1), np.int64)
    one[candidates.prompt] = np.arange(len(candidates))
    first = ids.draws(seed, "prompt", candidates.prompts[one])[candidates.prompt]
    return first, ids.draws(seed, "answer", candidates.ids)


def shares(weights: Mapping[str, float], available: Mapping[str, float], limit: float) -> dict[str, float]:
    """A limit cut by weight; what a domain cannot use passes on to the others, again by weight."""
    share = dict.fromkeys(available, 0.0)
    waiting = sorted(d for d in available if available[d] > 0 and weights[d] > 0)
    while waiting:
        total = sum(weights[d] for d in waiting)
        full = [d for d in waiting if limit * weights[d] / total >= available[d]]
        for d in full or waiting:
            share[d] = available[d] if full else limit * weights[d] / total
        limit -= sum(available[d] for d in full)
        waiting = [d for d in waiting if d not in full] if full else []
    return share


# Traits: `random`, whether the seed matters; `control`, whether others are to be compared with a selection of it.
selector = marker("selector")
