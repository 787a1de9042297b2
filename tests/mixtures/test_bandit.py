"""LinUCB finds what gains most, and learns nothing from an empty batch."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.kinds.mixture import Domains
from pipeline.mixtures.bandit import Turn, linucb

NAMES = ("add", "bits", "count", "dates", "even")
ROUNDS = 60


def domains(*names: str) -> Domains:
    unknown = np.full(len(names), np.nan)
    return Domains("large", np.array(names, object), np.ones(len(names)), *[unknown] * 5)


def turn(domain: str, gain: float, cost: float = 0.0, rows: int = 8, teacher: str = "large") -> Turn:
    return {"teacher": teacher, "domain": domain, "rows": rows, "gain": gain, "cost": cost}


def chosen(history: list[Turn], arms: int = 1, **arguments: float) -> list[str]:
    given = domains(*NAMES)
    return given.names[linucb(history=history, arms=arms, **arguments)(given) > 0].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_it_comes_close_to_who_knows_what_gains_most(seed: int) -> None:
    """At least 80 % of the best gain in 60 turns, and at most a tenth of what choosing by chance misses."""
    draw = np.random.default_rng(seed)
    gains, history, missed = dict(zip(NAMES, draw.permutation([0.1, 0.2, 0.4, 0.6, 1.0]), strict=True)), [], 0.0
    for _ in range(ROUNDS):
        [domain] = chosen(history, explore=0.5)
        history.append(turn(domain, gains[domain] + 0.05 * draw.standard_normal()))
        missed += 1.0 - gains[domain]
    by_chance = ROUNDS * (1.0 - np.mean(list(gains.values())))
    assert missed <= 0.2 * ROUNDS
    assert missed <= 0.1 * by_chance


@pytest.mark.parametrize(
    ("history", "arms", "says"),
    [
        ([], 1, ["add"]),
        ([], 9, list(NAMES)),
        ([turn("add", 0.0)], 1, ["bits"]),
        ([turn(name, 1.0) for name in NAMES], 2, ["add", "bits"]),
        ([turn(name, 9.0, rows=0) for name in NAMES] + [turn("dates", 1.0)], 1, ["dates"]),
        ([turn("add", 5.0, cost=5.0), turn("even", 5.0, cost=1.0)], 1, ["even"]),
        ([turn("gone", 1.0)], 1, ["add"]),
        ([turn("add", 3.0, teacher="small")], 1, ["add"]),
    ],
    ids=["none", "more than there are", "tried", "a tie", "empty batches", "cost", "another domain", "another teacher"],
)
def test_what_it_chooses(history: list[Turn], arms: int, says: list[str]) -> None:
    assert chosen(history, arms) == says
