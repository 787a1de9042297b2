"""What a student is likely to have by heart is foretold from rows of which that is known, and left out."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core.methods import find
from pipeline.errors import Refused
from pipeline.kinds.selector import Budget, Candidates, Decision
from tests.selectors.given import rows

NAMES = ("known", "zlib", "teacher", "base")


def pool(count: int = 400, told: int = 100) -> tuple[Candidates, np.ndarray]:
    """Rows of which a quarter compress well and are by heart; it is told of the first ones."""
    rng = np.random.default_rng(0)
    easy = rng.random(count) < 0.25
    zlib = np.where(easy, 10.0, 30.0) + rng.normal(0, 4, count)
    known = np.where(np.arange(count) < told, easy, np.nan)
    return rows(count, known=known, zlib=zlib, teacher=rng.random(count), base=rng.random(count)), easy


def choose(given: Candidates, budget: Budget | None = None, seed: int = 1, **arguments: object) -> Decision:
    method = find("selector", "memorisation.unlikely")
    own = method.arguments.model_validate({name: name for name in NAMES} | arguments).model_dump()
    return method.factory(**own)(given, budget or Budget(), seed)


def test_what_was_not_told_is_foretold() -> None:
    given, easy = pool()
    found = choose(given)
    assert (found.kept[100:] != easy[100:]).mean() > 0.95 and not found.kept[:100][easy[:100]].any()
    assert set(found.reason[~found.kept]) == {"by_heart"}


def test_a_higher_probability_lets_more_pass() -> None:
    given, _ = pool()
    few, many = (choose(given, most=most).kept.sum() for most in (0.05, 0.95))
    assert few < many


def test_what_is_kept_is_drawn_by_the_seed_within_the_budget() -> None:
    given, easy = pool()
    one, two = (choose(given, Budget(rows=50), seed).kept for seed in (1, 2))
    assert one.sum() == two.sum() == 50 and (one != two).any() and easy[100:][one[100:]].mean() < 0.1


def test_a_row_that_lacks_a_number_is_not_kept() -> None:
    given, _ = pool()
    given["base"][7] = np.nan
    found = choose(given)
    assert not found.kept[7] and found.reason[7] == "no_value"


@pytest.mark.parametrize(("known", "some"), [(0.0, "0 answers"), (1.0, "100 answers"), (np.nan, "0 answers")])
def test_nothing_is_foretold_from_one_sort_of_rows(known: float, some: str) -> None:
    given, _ = pool()
    given["known"][:100] = known
    with pytest.raises(Refused, match=f"tells of {some} that are by heart"):
        choose(given)
