"""What the commands say about a finished run: `status` agrees with what DVC then runs, the others with the files."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable

import pytest

from tests.e2e.conftest import Workspace

pytestmark = pytest.mark.e2e


def status(done: Workspace) -> dict[str, dict]:
    return json.loads(stillhouse(done, "status", "--json"))


def stillhouse(done: Workspace, *command: str) -> str:
    return done.run(sys.executable, "-m", "pipeline", *command).stdout


def a_scorer_argument(done: Workspace) -> None:
    done.edit(lambda p: p["score"]["agreement"].update(normalise="number"))


def a_train_epoch(done: Workspace) -> None:
    done.edit(lambda p: p["train"]["kd"].update(epochs=2))


def a_comment(done: Workspace) -> None:
    path = done.root / "pipeline" / "stages" / "train.py"
    path.write_text("# a remark\n" + path.read_text("utf-8"), "utf-8")


def a_new_instance(done: Workspace) -> None:
    done.edit(lambda p: p["score"].update(margin={"of": "responses/train", "use": "consistency.margin"}))


def a_removed_instance(done: Workspace) -> None:
    done.edit(lambda p: (p["train"].pop("random_sft"), p["evaluate"].pop("random_sft")))


def a_planned_edit(done: Workspace) -> None:
    a_train_epoch(done)
    done.repro("plan")


EDITS = {
    a_scorer_argument: ({"plan", "score@agreement"}, "params.use.arguments.normalise"),
    a_train_epoch: ({"plan", "train@kd"}, "params.epochs"),
    a_comment: ({"plan"}, "the code in pipeline/"),
    a_new_instance: ({"plan", "score@margin"}, "it never ran"),
    a_removed_instance: ({"plan", "report"}, "train.random_sft"),
    a_planned_edit: ({"train@kd"}, "params.epochs"),
}


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_status_agrees_with_what_dvc_then_runs(edit: Callable[[Workspace], None], done: Workspace) -> None:
    assert status(done) == {}
    edit(done)
    told = status(done)
    must, may = ({label for label, s in told.items() if s["state"] == state} for state in ("must", "may"))
    named, why = EDITS[edit]
    assert named <= must and any(why in key for s in told.values() for key in s["why"])
    ran = set(done.repro())
    assert must <= ran <= must | may
    assert status(done) == {}


def test_status_tells_a_lost_table_from_a_changed_one(done: Workspace) -> None:
    lost = done.data / "examples" / "random"
    shutil.rmtree(lost)
    [part, *_] = sorted((done.data / "selections/responses/train/coverage").iterdir())
    part.unlink()
    part.write_bytes(b"edited by hand")
    told = status(done)
    assert told["pack@random"] == {"state": "missing", "why": ["data/examples/random"]}
    assert told["select@coverage"]["state"] == "must"
    assert "train@random_sft" not in told
    ran = done.repro()
    assert "train@random_sft" not in ran and lost.is_dir() and status(done) == {}


def test_tidy_forgets_what_is_gone_and_what_was_killed(done: Workspace) -> None:
    a_removed_instance(done)
    done.repro()
    busy = done.root / ".dvc" / "tmp" / "rwlock"
    dead = {"pid": 2**22 + 1, "cmd": "dvc repro"}
    busy.write_text(json.dumps({"write": {"data/models/kd": dead}, "read": {}}), "utf-8")
    assert (done.data / ".orphans" / "models" / "random_sft").is_dir()
    said = stillhouse(done, "tidy", "--orphans")
    assert "train@random_sft" in said and "evaluate@random_sft" in said
    assert "train@random_sft" not in done.lock() and "train@kd" in done.lock()
    assert not json.loads(busy.read_text("utf-8"))["write"] and not (done.data / ".orphans").exists()
    assert done.repro() == [] and status(done) == {}


def test_tidy_waits_for_a_living_dvc(done: Workspace) -> None:
    before = (done.root / "dvc.lock").read_bytes()
    a_removed_instance(done)
    alive = {"pid": 1, "cmd": ""}
    (done.root / ".dvc" / "tmp" / "rwlock").write_text(json.dumps({"write": {"data/plan": alive}, "read": {}}), "utf-8")
    refused = done.run(sys.executable, "-m", "pipeline", "tidy", check=False)
    assert refused.returncode == 75 and "DVC is running here" in refused.stderr and "Traceback" not in refused.stderr
    assert (done.root / "dvc.lock").read_bytes() == before


def test_lineage_goes_from_a_model_to_a_prompt_and_back(finished: Workspace) -> None:
    nodes = {node["folder"]: node for node in json.loads(stillhouse(finished, "lineage", "kd", "--json"))}
    assert "prompts/train/tasks" in nodes and all(node["record"]["commit"] for node in nodes.values())
    [kept] = json.loads(
        stillhouse(
            finished,
            "query",
            "--json",
            "select min(prompt_id) as id from selections where kept and instance = 'coverage'",
        )
    )
    story = json.loads(stillhouse(finished, "lineage", "--json", kept["id"]))
    assert story["what"] == "prompts" and "kd" in story["trained"]["coverage"]
    assert {e["model"] for e in story["judged"]} >= {"kd", "coverage_sft"}


def test_results_say_where_the_time_went(finished: Workspace) -> None:
    said = stillhouse(finished, "results")
    assert "report: data/reports/report.html" in said
    assert len([line for line in said.partition("time: ")[2].splitlines() if "@" in line]) == 5
