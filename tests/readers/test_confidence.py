"""Confidence: right values by hand, of one token as of many, of a model with one outcome as with several."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.contracts import RESPONSES, SCORES
from pipeline.core.methods import find
from pipeline.errors import Refused
from pipeline.kinds.backend import Reading, Want
from pipeline.kinds.reader import want_of
from pipeline.readers import confidence
from pipeline.tables import parquet
from pipeline.tables.parquet import Scan
from pipeline.tables.rules import columns
from tests.tables.test_sql import response, score


def reading(*places: list[float], rest: float = 0.0, ids: list[list[int]] | None = None) -> Reading:
    """A reading with these likeliest probabilities at each place."""
    with np.errstate(divide="ignore"):
        logprobs_NK = np.log(np.array(places, np.float32))
    taken_NK = np.array(ids or [list(range(len(places[0])))] * len(places), np.int32)
    tail_N = np.full(len(places), rest, np.float32)
    return Reading("r", logprobs_NK[:, 0], topk_ids=taken_NK, topk_logprobs=logprobs_NK, tail_mass=tail_N)


@pytest.mark.parametrize(
    ("places", "score"),
    [
        ([[0.9, 0.1]], 80.0),
        ([[0.5, 0.5]], 0.0),
        ([[1.0, 0.0]], 100.0),
        ([[0.9, 0.1], [0.6, 0.2]], 60.0),
        ([[1.0]], 100.0),
    ],
    ids=["one token", "undecided", "certain", "two tokens", "one outcome"],
)
def test_margin(places: list[list[float]], score: float) -> None:
    row = confidence.margin()(reading(*places))
    assert row["score"] == pytest.approx(score, abs=1e-4)
    assert dict(row["quantities"]) == pytest.approx(
        {"margin_sum": score * len(places), "tokens": len(places)}, abs=1e-3
    )


def test_likeliest() -> None:
    row = confidence.likeliest()(reading([0.9], [0.5]))
    assert row["score"] == pytest.approx(0.7, abs=1e-6)
    assert dict(row["quantities"]) == pytest.approx({"likeliest_sum": 1.4, "tokens": 2})


@pytest.mark.parametrize(
    ("places", "rest", "score"),
    [
        ([[0.5, 0.5]], 0.0, math.log(2)),
        ([[1.0, 0.0]], 0.0, 0.0),
        ([[0.25, 0.25]], 0.5, 1.5 * math.log(2)),
        ([[0.5, 0.5], [1.0, 0.0]], 0.0, math.log(2) / 2),
    ],
    ids=["two outcomes", "certain", "with a tail", "two tokens"],
)
def test_entropy(places: list[list[float]], rest: float, score: float) -> None:
    assert confidence.entropy()(reading(*places, rest=rest))["score"] == pytest.approx(score, abs=1e-6)


def test_a_distribution_is_in_the_order_of_the_outcomes() -> None:
    row = confidence.distribution(outcomes=3)(reading([0.7, 0.2, 0.1], [0.5, 0.4, 0.1], ids=[[2, 0, 1], [2, 1, 0]]))
    assert row["vector"] == pytest.approx([0.15, 0.25, 0.6])
    assert row["score"] == pytest.approx(0.6) and row["quantities"] == [("tokens", 2.0)]


def test_a_distribution_of_some_outcomes_is_refused() -> None:
    with pytest.raises(Refused, match="more than 2 outcomes: number 4 is among the likeliest"):
        confidence.distribution(outcomes=2)(reading([0.7, 0.2], rest=0.1, ids=[[4, 0]]))


@pytest.mark.parametrize(
    ("name", "arguments", "want"),
    [
        ("confidence.margin", {}, Want(top_k=2)),
        ("confidence.entropy", {"top": 5}, Want(top_k=5)),
        ("confidence.distribution", {"outcomes": 3}, Want(top_k=3)),
        ("form.tokens", {}, None),
        ("likelihood.nll", {}, Want()),
        ("influence.gradient", {"width": 64, "adam": False}, Want(gradient=64)),
    ],
)
def test_what_is_asked_of_the_model_follows_from_the_arguments(name: str, arguments: dict, want: Want | None) -> None:
    assert want_of(find("reader", name), arguments) == want


def test_two_models_are_sure_together_by_a_threshold_of_each_class(tmp_path: Path) -> None:
    """Of the rows 0 and 1 the likeliest class is the first, of row 2 the second; of row 3 one model says nothing."""
    keys = [f"{i:032x}" for i in range(4)]
    said = {
        "teacher": [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.1, 0.9]],
        "student": [[0.7, 0.3], [0.6, 0.4], [0.6, 0.4], None],
    }
    parquet.write(RESPONSES, tmp_path / "responses/train/a", 1, [RESPONSES.rows(response(key, key) for key in keys)])
    for name, vectors in said.items():
        rows = [score(key, key, 1.0, vector) for key, vector in zip(keys, vectors, strict=True)]
        parquet.write(SCORES, tmp_path / f"scores/responses/train/{name}", 1, [SCORES.rows(rows)])
    scans = [
        Scan(RESPONSES, (tmp_path / "responses/train/a",)),
        Scan(SCORES, tuple(tmp_path / f"scores/responses/train/{name}" for name in said)),
    ]
    both = "combined(teacher.vector, student.vector)"
    found = columns(scans, tmp_path, {"both": both, "sure": f"sureness({both})", "kept": f"sureness({both}) >= 0.8"})
    assert found["both"].to_pylist()[:3] == [pytest.approx(p) for p in ([0.8, 0.2], [0.6, 0.4], [0.4, 0.6])]
    assert found["sure"].to_pylist() == [pytest.approx(1.0), pytest.approx(0.75), pytest.approx(1.0), None]
    assert found["kept"].to_pylist() == [True, False, True, None]
