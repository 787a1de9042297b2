"""pass@k and levels: the estimator of the paper, and what cannot be judged."""

from __future__ import annotations

from math import comb

import pyarrow as pa
import pytest

from pipeline.scorers.passing import pass_at_k
from pipeline.tables.sql import opened
from tests.scorers.scored import score, votes


def judged(*answers: str | None) -> dict[str, list]:
    rows = votes(*answers, verifier="numeric.last")
    return {**rows, "reference": pa.array(["7"] * len(answers), pa.string())}


@pytest.mark.parametrize("n", [1, 2, 5, 10, 200])
def test_it_is_the_estimator_of_the_paper_without_bias(n: int) -> None:
    connection = opened([])
    for c in {0, 1, n // 2, n - 1, n}:
        for k in {1, 2, 5, n} & set(range(1, n + 1)):
            exact = 1 - comb(n - c, k) / comb(n, k)
            assert pass_at_k(n, c, k) == pytest.approx(exact, abs=1e-13)
            [(by_macro,)] = connection.execute(f"SELECT pass_at({n}, {c}, {k})").fetchall()
            assert by_macro == pytest.approx(exact, abs=1e-13)
    assert pass_at_k(n, 1, n + 1) is None
    assert connection.execute(f"SELECT pass_at({n}, 1, {n + 1}), pass_at({n}, NULL, 1)").fetchall() == [(None, None)]


def test_every_sibling_gets_the_chance_and_the_counts() -> None:
    scores, quantities = score("passing.at_k", judged("7", "7.0", "8", None), k=2)
    assert scores == [pytest.approx(1 - comb(2, 2) / comb(4, 2))] * 4
    assert quantities == [{"n": 4, "c": 2, "k": 2}] * 4


def test_k_is_one_share_and_more_than_there_are_is_null() -> None:
    assert score("passing.at_k", judged("7", "8"))[0] == [0.5, 0.5]
    assert score("passing.at_k", judged("7"), k=1)[0] == [1]
    assert score("passing.at_k", judged("7", "8"), k=3)[0] == [None, None]
    assert score("passing.at_k", judged())[0] == []


def test_failed_requests_are_no_samples() -> None:
    rows = judged("7", None, "8")
    rows["error"] = pa.array([None, "no route", None], pa.string())
    scores, quantities = score("passing.at_k", rows)
    assert scores == [0.5, None, 0.5] and quantities[0]["n"] == 2


def test_without_verifier_or_reference_there_is_nothing_to_count() -> None:
    rows = {**votes("7", "8"), "reference": pa.array(["7", "7"])}
    for name in ("passing.at_k", "passing.level"):
        assert score(name, rows)[0] == [None, None]
        assert score(name, {**judged("7", "8"), "reference": pa.nulls(2, pa.string())})[0] == [None, None]


def test_the_levels_of_five_samples_are_those_of_the_paper() -> None:
    for right in range(6):
        answers = ["7"] * right + ["8"] * (5 - right)
        assert score("passing.level", judged(*answers))[0] == [6 - right] * 5


@pytest.mark.parametrize(("right", "n", "level"), [(1, 1, 1), (0, 1, 6), (1, 2, 4), (9, 10, 2), (10, 10, 1), (0, 3, 6)])
def test_another_number_of_samples_has_the_nearest_level(right: int, n: int, level: int) -> None:
    assert score("passing.level", judged(*["7"] * right + ["8"] * (n - right)))[0] == [level] * n
