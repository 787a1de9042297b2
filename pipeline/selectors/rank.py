"""Selectors by a number: the best first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.errors import Refused
from pipeline.kinds.selector import Budget, Candidates, Decision, Selector, Sql, decide, selector, spend


@selector(random=False)
def top(*, by: Sql) -> Selector:
    """The answers with the highest value of an expression; null is never kept, ties go to the lower id.

    Rules of the field that are no more than that:

        deita without diversity  by: deita(complexity.score, quality.score)
        ifd (Cherry LLM)         by: ifd(answer_nll.score, direct_nll.score)
                                 where: ifd(answer_nll.score, direct_nll.score) <= 1
        limo                     by: 0.3 * length.score + 0.2 * checks.score + 0.25 * (explores.score + joins.score)
                                 where: base_solves.score = 0 AND teacher_solves.score BETWEEN 1 / 32 AND 3 / 32
        nearest teacher          by: similarity.score

    Paper: the selection step of Li et al. 2024 (IFD), and of Ye et al. 2025 (LIMO, arXiv 2502.03387), section 3.
    Differs: an answer that no longer fits the budget is passed over for smaller ones.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        return best(candidates, budget, candidates[by], "top", {})

    return select


@selector(random=False)
def miniplm(*, reference: Sql, teacher: Sql, ratio: Annotated[float, Field(gt=0, le=1)] = 0.5) -> Selector:
    """What the teacher knows and a small model does not: the `ratio` of the answers with the greatest difference.

    `reference` and `teacher` are the mean negative log-probabilities of a token by a small model, which was not trained
    on these rows, and by the teacher. Noise is unlikely to both and trivial text likely to both; neither is kept.

    Paper: Gu et al. 2025 (MiniPLM, arXiv 2410.17215), difference sampling: log p_teacher - log p_reference, whose
    greatest int(ratio * n) of n are kept.
    Differs: means and not sums, as in their code, since rows differ in length; the budget cuts what is left again.
    """

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        value = candidates[reference] - candidates[teacher]
        order = np.argsort(-value, kind="stable")[: (~np.isnan(value)).sum()]
        below = np.zeros(len(value), bool)
        below[order[int(ratio * len(order)) :]] = True
        return best(candidates, budget, value, "difference", {"below_ratio": below})

    return select


@selector(random=False)
def hard(*, disagreement: Sql, least: float, most: float) -> Selector:
    """What teacher and student disagree about and the student can still learn: from `least` to `most`, the most first.

    `disagreement` is their divergence on an answer, or how often the verifier tells theirs apart. Whether the teacher
    is sure of what it says is for `where`.

    Paper: Nix et al. 2023 (HARD, arXiv 2305.14890): an example is made harder only below an upper loss, and learnt only
    above a lower one.
    Differs: it chooses among answers to prompts that were changed before, and changes none by gradient.
    """
    if least > most:
        raise Refused(f"rank.hard: least ({least:g}) is above most ({most:g})")

    def select(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        value = candidates[disagreement]
        return best(candidates, budget, value, "in_band", {"too_easy": value < least, "too_hard": value > most})

    return select


def best(
    candidates: Candidates, budget: Budget, value: np.ndarray, why: str, refused: Mapping[str, np.ndarray]
) -> Decision:
    """The highest values that fit, without those that are refused by name or are not there."""
    refused = {"no_value": np.isnan(value), **refused}
    kept = spend(ranked(candidates, budget, value, refused), budget.cost_of(candidates), budget.limit)
    return decide(candidates, budget, kept, why, refused)


def ranked(candidates: Candidates, budget: Budget, value: np.ndarray, refused: Mapping[str, np.ndarray]) -> np.ndarray:
    """Places in the order of falling values, without those that are refused."""
    order = np.argsort(-value, kind="stable")
    return budget.firsts(candidates, order[~np.any(list(refused.values()), 0)[order]])
