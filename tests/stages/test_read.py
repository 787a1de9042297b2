"""Read: what a classifier says of answers, through the stage; other models are read in `e2e/test_graph.py`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.contracts import RESPONSES, SCORES
from pipeline.core.driver import run_instance
from pipeline.core.methods import find
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance
from pipeline.stages import read
from pipeline.tables import ids, parquet
from pipeline.tables.parquet import Scan
from tests.tables.test_sql import response

NAMES = ("left", "right", "up")
SAID = ["left", "up", "down", None, " right "]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier, and five answers: three that it has a name for, one that it has none for, and none."""
    root = tmp_path_factory.mktemp("run") / "data"
    (root / "models/sorter").mkdir(parents=True)
    made = find("origin", "text.bert").factory(
        alphabet="abcd", outcomes=NAMES, width=16, layers=1, heads=2, context=32, seed=3
    )
    (root / "models/sorter/model.json").write_text(json.dumps(made(root / "models/sorter")), "utf-8")
    rows = []
    for i, said in enumerate(SAID):
        key = ids.digest(i)
        own = {"content": said, "messages": [{"role": "user", "content": "abcd"[i % 4] * (i + 1)}]}
        rows.append({**response(key, key), **own})
    parquet.write(RESPONSES, root / "responses/train/some", 1, [RESPONSES.rows(rows)])
    return root


def scored(data: Path, name: str, **given: object) -> list[dict]:
    """The scores of the answers, in their order."""
    params = read.Params.model_validate({"of": "responses/train", "model": "sorter", **given})
    inputs = {"responses": ("responses/train/some",), "model": ("models/sorter",)}
    settings = RunSettings(threads=1, device="cpu")
    run_instance(Instance("read", name, params, inputs, params.output(name), "c"), settings, data, data.parent)
    found = {row["response_id"]: row for row in Scan(SCORES, (data / params.output(name),)).pylist()}
    return [found[ids.digest(i)] for i in range(len(SAID))]


def test_a_classifier_is_read_at_its_outcomes(data: Path) -> None:
    nll, spread, wise = (
        scored(data, "nll", use="likelihood.nll"),
        scored(data, "spread", use="confidence.distribution", outcomes=3),
        scored(data, "grad", use="influence.gradient", width=8),
    )
    for i, outcome in {0: 0, 1: 2, 4: 1}.items():
        assert sum(spread[i]["vector"]) == pytest.approx(1, abs=1e-5)
        assert np.exp(-nll[i]["score"]) == pytest.approx(spread[i]["vector"][outcome], rel=1e-4)
        assert np.linalg.norm(wise[i]["vector"]) == pytest.approx(1, abs=1e-5)


def test_an_answer_that_is_no_outcome_has_no_score(data: Path) -> None:
    for rows in (scored(data, "nll", use="likelihood.nll"), scored(data, "margin", use="confidence.margin")):
        assert [row["score"] is None for row in rows] == [False, False, True, True, False]
        assert [row["detail"] for row in rows[2:4]] == ["the answer is none of the model's outcomes", None]
