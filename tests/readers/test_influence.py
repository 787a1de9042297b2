"""Influence: what a student learns from an answer, and the way from gradients to a selection towards a target."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.contracts import RESPONSES, SCORES, SELECTIONS
from pipeline.core.driver import run_instance
from pipeline.core.methods import find
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance, Plan
from pipeline.errors import Refused
from pipeline.kinds.backend import Reading
from pipeline.model.folder import finish
from pipeline.readers import influence
from pipeline.stages import read, select
from pipeline.tables import ids, parquet
from pipeline.tables.parquet import Scan
from tests.tables.test_sql import response

EMBEDDED = Path(__file__).parents[2] / "data" / "embedded" / "base"
POOL, TARGET = "responses/train/teacher", "responses/train/right"
ALONE, NONE = RunSettings(threads=1), np.zeros(1, np.float32)


def test_a_gradient_is_its_direction_and_its_length() -> None:
    row = influence.gradient(width=2)(Reading("r", NONE, gradient=np.array([3.0, 4.0], np.float32)))
    assert row == {"score": 5.0, "quantities": [("width", 2.0)], "vector": pytest.approx([0.6, 0.8])}


def test_what_teaches_nothing_has_no_direction() -> None:
    row = influence.gradient(width=2)(Reading("r", NONE, gradient=np.zeros(2, np.float32)))
    assert (row["score"], row["vector"]) == (0.0, None)


def test_a_step_is_worth_what_the_loss_falls() -> None:
    row = influence.one_step()(Reading("r", NONE, descent=np.array([2.0, 1.5])))
    assert row == {"score": 0.5, "quantities": [("before", 2.0), ("after", 1.5)]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded base, worked solutions of two domains to learn from, and a few of one of them as a target."""
    root = tmp_path_factory.mktemp("run") / "data"
    shutil.copytree(EMBEDDED, root / "models/base")
    (root / "models/base/model.json").write_text(json.dumps(finish(root / "models/base", "float32")), "utf-8")
    rows: dict[str, list[dict]] = {POOL: [], TARGET: []}
    for domain, count in {"mul": 52, "count": 40}.items():
        for number, task in enumerate(
            find("source", "procedural.tasks").factory(rows=count, seed=5, domains={domain: 1})
        ):
            given: Mapping[str, Any] = task.columns
            entry, key = "right" if number >= 40 else "teacher", ids.digest(domain, number)
            own = {"messages": given["messages"], "content": given["solution"], "domain": domain}
            rows[f"responses/train/{entry}"].append({**response(key, key, entry), **own})
    for folder, of in rows.items():
        parquet.write(RESPONSES, root / folder, 2, [RESPONSES.rows(of)])
    return root


def scored(data: Path, name: str, **given: Any) -> list[dict]:
    """What a reader says of all answers."""
    params = read.Params.model_validate({"of": "responses/train", "model": "base", **given})
    inputs = {"responses": (TARGET, POOL), "model": ("models/base",)}
    run_instance(Instance("read", name, params, inputs, params.output(name), "c"), ALONE, data, data.parent)
    return Scan(SCORES, (data / params.output(name),)).pylist()


@pytest.fixture(scope="module")
def gradients(data: Path) -> list[dict]:
    """The gradients of all answers, in `scores/responses/train/grad`."""
    return scored(data, "grad", use="influence.gradient", width=512)


def domains(data: Path) -> dict[str, str]:
    return {r["response_id"]: r["domain"] for r in Scan(RESPONSES, (data / POOL,)).pylist(["response_id", "domain"])}


def test_less_finds_the_family_of_the_target(data: Path, gradients: list[dict]) -> None:
    """The best by gradients are of the target's domain, where half of all answers are."""
    assert all(np.linalg.norm(row["vector"]) == pytest.approx(1, abs=1e-5) for row in gradients)
    params = select.Params.model_validate({
        "of": "responses/train", "use": "target.less", "vector": "grad.vector", "target": "entry = 'right'",
        "budget_rows": 5, "seed": 1,
    })  # fmt: skip
    inputs = {"responses": (TARGET, POOL), "scores": ("scores/responses/train/grad",), "gates": (), "gaps": ()}
    run_instance(Instance("select", "less", params, inputs, params.output("less"), "c"), ALONE, data, data.parent)
    kept = [r["domain"] for r in Scan(SELECTIONS, (data / params.output("less"),)).pylist() if r["kept"]]
    assert len(kept) == 5 and kept.count("mul") >= 4


def test_a_step_on_the_targets_domain_helps_it_more_than_one_on_another(data: Path, gradients: list[dict]) -> None:
    """And by what the gradients say: the loss falls by the rate times their inner product."""
    rows = {r["response_id"]: r for r in scored(data, "step", use="influence.one_step", target=TARGET)}
    of = domains(data)
    by_domain = {d: np.mean([rows[key]["score"] for key in of if of[key] == d]) for d in ("mul", "count")}
    assert by_domain["mul"] > 2 * abs(by_domain["count"])
    whole = {row["response_id"]: np.array(row["vector"]) * row["score"] for row in gradients}
    aim = np.mean([whole[key] for key in whole.keys() - of.keys()], axis=0)
    first_order = [1e-3 * whole[key] @ aim for key in of if of[key] == "mul"]
    assert np.corrcoef(first_order, [rows[key]["score"] for key in of if of[key] == "mul"])[0, 1] > 0.8


def test_a_target_without_answers_is_refused(data: Path) -> None:
    empty = [{**response("0" * 32, "0" * 32, "none"), "content": None, "finish_reason": "error"}]
    parquet.write(RESPONSES, data / "responses/train/none", 2, [RESPONSES.rows(empty)])
    with pytest.raises(Refused, match=r"read.no.target: responses/train/none has no answers"):
        scored(data, "no", use="influence.one_step", target="responses/train/none")


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (
            {"use": "influence.one_step"},
            ["target: influence.one_step needs one of the tables of answers in responses/t"],
        ),
        ({"use": "influence.one_step", "target": "responses/dev/right"}, ["target: influence.one_step needs one of"]),
        ({"use": "influence.gradient", "target": POOL}, ["target: influence.gradient looks at none; leave it out"]),
        ({"use": "form.tokens", "target": POOL}, ["target: form.tokens looks at none; leave it out"]),
        ({"use": "influence.gradient"}, []),
    ],
)
def test_a_target_is_for_who_looks_at_it(given: dict, fault: list[str]) -> None:
    params = read.Params.model_validate({"of": "responses/train", "model": "base", **given})
    found = params.check(Plan(RunSettings()))
    assert len(found) == len(fault) and all(text.startswith(start) for text, start in zip(found, fault, strict=True))
