"""The rows of a step: every row once an epoch, or with a pacing drawn from those that the curriculum has come to."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("torch")

from pipeline.errors import Refused
from pipeline.training.order import Order
from pipeline.training.recipe import Pacing, Recipe

ROWS = 50
PROMPTS = np.array([f"p{i // 5:04d}" for i in range(ROWS)])
# No row's rank is its number.
RANKS = (np.arange(ROWS) * 7 + 3) % ROWS


def order(sets: bool = False, ranks: np.ndarray | None = RANKS, **given: object) -> Order:
    recipe = Recipe.model_validate({"epochs": 4, "batch_rows": 8, "seed": 17, **given})
    return Order(PROMPTS, recipe, sets, ranks)


def steps(of: Order) -> list[np.ndarray]:
    return [of.at(step) for step in range(of.steps)]


def test_without_a_pacing_every_row_comes_once_an_epoch_whatever_its_rank() -> None:
    found = steps(order())
    per_epoch = math.ceil(ROWS / 8)
    for epoch in range(4):
        rows = np.concatenate(found[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert sorted(rows) == list(range(ROWS))
    for other in (None, RANKS[::-1]):
        assert all((one == two).all() for one, two in zip(found, steps(order(ranks=other)), strict=True))


@pytest.mark.parametrize(
    ("pacing", "shares"),
    [
        ({}, {0: 0.2, 0.25: 0.6, 0.5: 1, 0.9: 1}),
        ({"by": "root"}, {0: 0.2, 0.125: 0.6, 0.5: 1, 1: 1}),
        ({"by": "step"}, {0: 0.2, 0.49: 0.2, 0.5: 1}),
        ({"by": "linear", "begin": 0.5, "full": 1.0}, {0: 0.5, 0.5: 0.75, 1: 1}),
        ({"begin": 1.0}, {0: 1, 0.3: 1}),
    ],
    ids=str,
)
def test_a_share_grows_as_its_function_says(pacing: dict, shares: dict) -> None:
    made = Pacing.model_validate(pacing)
    assert {done: made.share(done) for done in shares} == pytest.approx(shares)
    grown = [made.share(done) for done in np.linspace(0, 1, 101)]
    assert grown == sorted(grown) and grown[-1] == 1


@pytest.mark.parametrize("sets", [False, True])
@pytest.mark.parametrize("by", ["linear", "root", "step"])
def test_a_step_is_drawn_from_the_lowest_ranks_and_costs_what_its_control_costs(by: str, sets: bool) -> None:
    paced, control = order(sets, pacing={"by": by}), order(sets)
    assert paced.steps == control.steps
    pacing = Pacing(by=by)  # type: ignore[arg-type]
    least = np.array([RANKS[prompt == PROMPTS].min() for prompt in PROMPTS]) if sets else RANKS
    allowed = np.unique(least)
    for step, (rows, others) in enumerate(zip(steps(paced), steps(control), strict=True)):
        assert len(rows) == len(others) == len(set(rows.tolist()))
        units = len(others) // (5 if sets else 1)
        able = max(units, math.ceil(pacing.share(step / paced.steps) * len(allowed)))
        assert set(least[rows]) <= set(allowed[:able])
        if sets:
            assert set(Counter(PROMPTS[rows].tolist()).values()) == {5}
    late = np.concatenate(steps(paced)[paced.steps // 2 :])
    assert least[late].max() > np.median(least)


def test_a_pacing_is_the_same_wherever_it_goes_on_and_another_by_another_seed() -> None:
    found = steps(order(pacing={}))
    assert (order(pacing={}).at(9) == found[9]).all()
    assert any((one != two).any() for one, two in zip(found, steps(order(pacing={}, seed=18)), strict=True))


def test_hard_to_easy_is_the_order_of_ranks_turned_around() -> None:
    easy, hard = order(pacing={}), order(pacing={}, ranks=ROWS - 1 - RANKS)
    for step in range(easy.steps):
        assert RANKS[easy.at(step)].tolist() == (ROWS - 1 - RANKS[hard.at(step)]).tolist()


@pytest.mark.parametrize("ranks", [None, np.where(np.arange(ROWS) == 7, -1, RANKS)], ids=["none", "one lacks"])
def test_rows_without_a_rank_have_no_pacing(ranks: np.ndarray | None) -> None:
    with pytest.raises(Refused, match="rows without a rank; let the selection they are of say `order:`"):
        order(ranks=ranks, pacing={})


@pytest.mark.parametrize("bad", [{"by": "log"}, {"begin": 0}, {"full": 1.5}, {"start": 0.1}], ids=str)
def test_a_pacing_that_means_nothing_is_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        order(pacing=bad)
