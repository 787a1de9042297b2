"""The walkthrough of docs/own-data.md: prompts, teacher and student of the user's own, by editing params.yaml alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.plan.faults import PlanError
from pipeline.plan.resolve import resolve
from tests.e2e.brought import EDITS, answers, metrics, stillhouse, use
from tests.e2e.conftest import BIN, ROOT, Workspace, make_workspace

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def local(own: Path, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The walkthrough with a teacher and a student from folders, run to its end."""
    workspace = make_workspace(tmp_path_factory.mktemp("local") / "repo", env, lambda params: None)
    shutil.copytree(own, workspace.data / "own", dirs_exist_ok=True)
    use(workspace, "own_data.yaml", EDITS)
    workspace.repro()
    return workspace


def test_own_prompts_teacher_and_student(local: Workspace) -> None:
    found = metrics(local)
    assert set(found) == {"teacher", "base", "random_sft", "agreed_sft", "kd"}
    assert found["teacher"]["accuracy"] > 0.9
    assert found["base"]["accuracy"] < 0.1
    assert found["kd"]["agreement_with_teacher"] >= found["base"]["agreement_with_teacher"]
    config = json.loads((local.data / "models" / "kd" / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    asked = {row["prompt_id"] for row in answers(local, "train/teacher")}
    assert 120 < len(asked) < 180
    assert found["teacher"]["n"] == 200 - len(asked)
    assert "agreed_sft against random_sft" in stillhouse(local, "results")
    assert local.repro() == []


@pytest.mark.long
def test_prompts_without_reference_answers(local: Workspace, tmp_path: Path) -> None:
    """Agreement with the teacher and held-out likelihood are what is left to measure; nothing is asked twice."""
    workspace = local.copy(tmp_path / "repo")
    file = workspace.data / "own" / "prompts.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    file.write_text("".join(json.dumps({"question": row["question"]}) + "\n" for row in rows), "utf-8")
    use(workspace, "no_references.yaml", EDITS)
    ran = workspace.dvc("repro")
    asked = len(answers(workspace, "train/teacher"))
    assert f"generate@teacher: {asked} of {asked} from memo" in ran.stdout + ran.stderr
    found = metrics(workspace)
    assert not any("accuracy" in row for row in found.values())
    nll = {name: row["nll_of_reference"] for name, row in found.items()}
    assert nll["teacher"] < nll["agreed_sft"] < nll["base"]
    assert nll["teacher"] < nll["random_sft"] < nll["base"]
    agreement = {name: row["agreement_with_teacher"] for name, row in found.items() if name != "teacher"}
    assert set(agreement) == {"base", "random_sft", "agreed_sft"}
    page = (workspace.data / "reports" / "report.html").read_text("utf-8")
    assert "NLL of reference" in page
    assert "no references" in page
    assert f"nll_of_reference {nll['agreed_sft']:g}" in stillhouse(workspace, "results")


def test_plan_names_what_a_teacher_without_logprobs_cannot_do(local: Workspace, monkeypatch) -> None:
    """Deleting exactly the entries that the message names gives a plan that works."""
    monkeypatch.chdir(local.root)
    params = local.params()
    params["acquire"]["teacher"] = {"use": "remote.endpoint", "model": "m", "version": "1"}
    with pytest.raises(PlanError) as refused:
        resolve(params)
    deletions = {fault.split(": ")[0]: re.search(r"or delete ([^;]*)", fault)[1] for fault in refused.value.faults}
    assert deletions == {
        "probe.teacher": "evaluate.kd, probe.teacher, quality.kd_signals, train.kd",
        "read.teacher_nll": "read.teacher_nll",
    }
    [told] = [fault for fault in refused.value.faults if fault.startswith("read")]
    assert "then gaps.main: teacher_nll: no score of responses/train is called 'teacher_nll'" in told
    for entry in ", ".join(deletions.values()).split(", "):
        section, name = entry.split(".")
        del params[section][name]
    del params["gaps"]["main"]["teacher_nll"], params["gaps"]["main"]["student_nll"]
    left = resolve(params)
    served = yaml.safe_load((ROOT / "recipes" / "served_teacher.yaml").read_text("utf-8"))
    assert set(left.instances) - {"read@base_nll"} == set(resolve(served).instances)


@pytest.fixture(scope="module")
def endpoint(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The teacher behind `transformers serve`, a real server that knows neither `n` nor `logprobs`."""
    home = tmp_path_factory.mktemp("served")
    # Its list of models is an error where this folder is missing.
    (home / "hub").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(BIN / "transformers"), "serve", str(own / "teacher"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--device", "cpu", "--dtype", "float32"]
    offline = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, env={**os.environ, **offline}, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while not healthy(port):
                assert process.poll() is None, (home / "log").read_text()
                assert time.monotonic() < deadline, "the server did not start"
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait()


def healthy(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 0.5):
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
    except OSError:
        # A refused connection returns at once, so the loop that asks would be a busy one.
        time.sleep(0.2)
        return False


@pytest.mark.long
def test_a_served_teacher(own: Path, endpoint: str, env: dict[str, str], tmp_path: Path) -> None:
    """An OpenAI-compatible server teaches a student of another vocabulary, the shipped base."""
    workspace = make_workspace(tmp_path / "repo", env, lambda params: None)
    shutil.copytree(own, workspace.data / "own", dirs_exist_ok=True)
    served = {
        "http://127.0.0.1:8000/v1": endpoint,
        "my-teacher": str(own / "teacher"),
        '"2026-01"': "main",
        "data/own/student": "data/embedded/base",
        "k: 8": "k: 3",
    }
    use(workspace, "served_teacher.yaml", EDITS | served)
    assert f"answers as '{own / 'teacher'}'" in stillhouse(workspace, "doctor")
    workspace.repro()
    rows = answers(workspace, "train/teacher")
    samples: dict[str, set[int]] = {}
    for row in rows:
        samples.setdefault(row["prompt_id"], set()).add(row["sample"])
        assert (row["model_id"], row["error"], row["logprobs"]) == (f"{own / 'teacher'}@main", None, None)
    assert set(map(len, samples.values())) == {3}
    found = metrics(workspace)
    assert set(found) == {"teacher", "base", "random_sft", "agreed_sft"}
    assert found["teacher"]["accuracy"] > 0.9
    assert found["agreed_sft"]["agreement_with_teacher"] >= found["base"]["agreement_with_teacher"]
    assert stillhouse(workspace, "ask", "teacher", "abc").strip() == "bcd"
