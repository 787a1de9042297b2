"""The plan on disk: written whole, tables that nobody owns put aside, a schema for editors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.core import identity
from pipeline.core.methods import available
from pipeline.errors import Refused
from pipeline.plan.disk import codes, current, remember, set_aside, write
from pipeline.plan.disk import schema as plan_schema
from pipeline.plan.resolve import resolve

ROOT = Path(__file__).parents[2]


def written(data: Path) -> dict[str, str]:
    return {str(f.relative_to(data)): f.read_text("utf-8") for f in (data / "plan").rglob("*.json")}


def test_the_plan_is_written_whole_and_the_same_again(given: dict[str, Any], tmp_path: Path) -> None:
    write(resolve(given), tmp_path)
    first = written(tmp_path)
    assert {"plan/train/kd.json", "plan/gate/answers.json", "plan/report.json", "plan/params.schema.json"} <= set(first)
    write(resolve(given), tmp_path)
    assert written(tmp_path) == first
    given["train"].pop("kd")
    given["evaluate"].pop("kd")
    write(resolve(given), tmp_path)
    assert set(first) - set(written(tmp_path)) == {"plan/train/kd.json", "plan/evaluate/kd.json"}


def test_tables_that_nobody_owns_are_put_aside(given: dict[str, Any], tmp_path: Path) -> None:
    resolved = resolve(given)
    for folder in ("models/kd", "models/old", "scores/responses/train/old", "scores/responses/train/agreement"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "models" / "old" / "config.json").write_text("{}", "utf-8")
    moved = set_aside(resolved, tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in moved) == ["models/old", "scores/responses/train/old"]
    assert (tmp_path / ".orphans" / "models" / "old" / "config.json").exists()
    assert (tmp_path / "models" / "kd").is_dir()
    assert set_aside(resolved, tmp_path) == []


def test_an_old_plan_is_refused_by_the_key_that_differs(given: dict[str, Any], tmp_path: Path) -> None:
    write(resolve(given), tmp_path)
    current(resolve(given).instances["train@kd"], tmp_path)
    given["train"]["kd"]["epochs"] = 9
    now = resolve(given).instances
    with pytest.raises(Refused, match=r"older than params.yaml or the code \(params.epochs\).*dvc repro plan"):
        current(now["train@kd"], tmp_path)
    current(now["train@random_sft"], tmp_path)


def test_fingerprints_are_those_of_the_plan_until_a_file_is_another(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    (package / "stages").mkdir(parents=True)
    (package / "stages" / "train.py").write_text("# one", "utf-8")
    monkeypatch.setattr(identity, "PACKAGE", package)
    plan = replace(resolve(given), instances={"train@kd": resolve(given).instances["train@kd"]})
    assert codes(tmp_path) == {}
    remember(plan, identity.package(), tmp_path)
    assert codes(tmp_path) == {"train@kd": plan.instances["train@kd"].code}
    assert resolve(given, "train@kd", {"train@kd": "known"}).instances["train@kd"].code == "known"
    for text, kept in (("# two", {}), ("# one", codes(tmp_path))):
        (package / "stages" / "train.py").write_text(text, "utf-8")
        assert codes(tmp_path) == kept
    (package / "stages" / "mine.py").write_text("", "utf-8")
    assert codes(tmp_path) == {}


def test_the_schema_knows_every_section_and_method(given: dict[str, Any]) -> None:
    schema = plan_schema()
    assert set(given) <= set(schema["properties"])
    sections = {name: schema["properties"][name]["additionalProperties"] for name in ("score", "train", "ingest")}
    assert {"enum": list(available("scorer"))} in sections["score"]["$defs"].values()
    assert {"enum": list(available("objective"))} in sections["train"]["$defs"].values()
    assert {"enum": list(available("verifier"))} in sections["ingest"]["$defs"].values()
    json.dumps(schema)
