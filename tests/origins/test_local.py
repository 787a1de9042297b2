"""The engine of a model folder is chosen where it is acquired, and what it does not give is refused in the plan."""

from __future__ import annotations

import copy
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.core.methods import find
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Plan
from pipeline.errors import Refused
from pipeline.kinds.backend import card_of, engine_of, open_model
from pipeline.origins import local
from pipeline.plan.faults import PlanError
from pipeline.plan.resolve import resolve

ROOT = Path(__file__).parents[2]
TEACHER = {"use": "local.embedded", "name": "teacher", "engine": "vllm"}


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def acquired(out: Path, engine: local.Engine) -> Path:
    out.mkdir()
    (out / "model.json").write_text(json.dumps(local.embedded(name="teacher", engine=engine)(out)), "utf-8")
    return out


def test_an_engine_is_part_of_a_request_and_not_of_the_model(tmp_path: Path) -> None:
    ours, theirs = (card_of(acquired(tmp_path / engine, engine)) for engine in ("transformers", "vllm"))
    assert ours["model_id"] == theirs["model_id"]
    assert (ours["backend"], theirs["backend"]) == ("local.model", "vllm.engine")
    assert engine_of(ours) != engine_of(theirs)


@pytest.mark.parametrize("origin", ["local.embedded", "local.folder", "remote.hub", "gguf.package"])
def test_every_folder_can_be_run_with_either_engine(origin: str) -> None:
    gives = find("origin", origin).traits["gives"]
    assert gives({}) == gives({"engine": "transformers"}) != gives({"engine": "vllm"})
    assert "engine" in find("origin", origin).arguments.model_fields


def resolved(**entries: dict[str, Any]) -> Plan:
    given = copy.deepcopy(yaml.safe_load((ROOT / "params.yaml").read_text("utf-8")))
    given["acquire"]["teacher"] = TEACHER
    for section, entry in entries.items():
        given[section] = {**given.get(section, {}), "added": entry}
    return resolve(given)


def test_what_vllm_gives_is_planned() -> None:
    use = {"of": "responses/train/teacher", "model": "teacher", "use": "likelihood.nll"}
    assert "read@added" in resolved(read=use).instances


def test_an_embedding_or_a_training_is_refused() -> None:
    use = {"of": "responses/train/teacher", "model": "teacher", "use": "likelihood.embedding"}
    with pytest.raises(
        PlanError, match=r"read\.added: needs hidden_states of the model 'teacher', which gives form, gen"
    ):
        resolved(read=use)
    given = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
    given["acquire"]["base"]["engine"] = "vllm"
    with pytest.raises(PlanError, match="needs gradients of the model 'base'"):
        resolve(given)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_a_missing_vllm_says_how_to_get_it(tmp_path: Path) -> None:
    folder = acquired(tmp_path / "teacher", "vllm")
    with (
        pytest.raises(Refused, match=r"not installed: `make vllm` makes an environment of its own for it"),
        open_model(folder, How(RunSettings(), tmp_path, "generate@teacher")),
    ):
        pass
