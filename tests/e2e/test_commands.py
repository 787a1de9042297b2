"""What the commands say about a finished run: `status` agrees with what DVC then runs, the others with the files."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands import sizes
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from tests.e2e.conftest import Workspace

pytestmark = pytest.mark.e2e
COSTLY = {"generate", "read", "pack", "probe", "train", "evaluate"}


def status(done: Workspace) -> dict[str, dict]:
    return json.loads(stillhouse(done, "status", "--json"))


def stillhouse(done: Workspace, *command: str) -> str:
    return done.run(sys.executable, "-m", "pipeline", *command).stdout


def without_random(params: dict[str, Any]) -> None:
    del params["train"]["random_sft"], params["evaluate"]["random_sft"]


def agreed(done: Workspace, must: set[str], why: str) -> set[str]:
    """What `dvc repro` runs or restores, after `status` has said what must run and what may, and for which reason."""
    told = status(done)
    named = {state: {label for label, s in told.items() if s["state"] == state} for state in ("must", "may")}
    assert must <= named["must"] and any(why in key for s in told.values() for key in s["why"])
    ran = set(re.findall(r"^(?:Running stage|Stage) '(\S+)'(?: is cached|:)", done.dvc("repro").stdout, re.M))
    assert named["must"] <= ran <= named["must"] | named["may"]
    assert status(done) == {}
    return ran


@pytest.mark.long
def test_another_argument_of_a_scorer_runs_what_follows(done: Workspace) -> None:
    assert status(done) == {}
    done.edit(lambda p: p["score"]["agreement"].update(normalise="number"))
    ran = agreed(done, {"plan", "score@agreement"}, "params.use.arguments.normalise")
    assert not [label for label in ran if label.startswith("generate")]


def test_another_training_runs_its_cone_planned_or_not(done: Workspace) -> None:
    done.edit(lambda p: p["train"]["kd"].update(epochs=2))
    assert {label: s["state"] for label, s in status(done).items() if label in ("plan", "train@kd", "evaluate@kd")} == {
        "plan": "must", "train@kd": "must", "evaluate@kd": "may",
    }  # fmt: skip
    done.repro("plan")
    assert agreed(done, {"train@kd"}, "params.epochs") == {"train@kd", "evaluate@kd", "report"}


def test_a_comment_runs_plan_only(done: Workspace) -> None:
    for room in ("stages/train.py", "scorers/consistency.py"):
        path = done.root / "pipeline" / room
        path.write_text("# a remark\n" + path.read_text("utf-8"), "utf-8")
    assert agreed(done, {"plan"}, "the code in pipeline/") == {"plan"}


@pytest.mark.long
def test_an_instance_added_and_removed_trains_nothing_and_restores_the_lock(done: Workspace) -> None:
    before, params = done.lock(), done.params()
    done.edit(lambda p: p["score"].update(margin={"of": "responses/train", "use": "consistency.margin"}))
    ran = agreed(done, {"plan", "score@margin"}, "it never ran")
    assert not [label for label in ran if label.split("@")[0] in COSTLY]
    done.edit(lambda p: (p.clear(), p.update(params)))
    agreed(done, {"plan"}, "score.margin")
    stillhouse(done, "tidy")
    after = done.lock()
    # The report tells when it was made, and DVC restores none that lies where a failed one must leave the last.
    for lock in (before, after):
        del lock["report"]["outs"]
    assert after == before
    assert not (done.data / "scores/responses/train/margin").exists()


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
    done.edit(without_random)
    agreed(done, {"plan", "report"}, "train.random_sft")
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
    done.edit(without_random)
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
    assert len([line for line in said.partition("time: ")[2].partition("money: ")[0].splitlines() if "@" in line]) == 5


def test_sizes_are_told_to_a_factor_of_two(
    finished: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is asked: of the prompts and the models of the world alone."""
    monkeypatch.chdir(finished.root)
    plan = resolve(load(Path("params.yaml")))
    for folder in ("prompts", "models/teacher", "models/base"):
        shutil.copytree(finished.data / folder, tmp_path / folder)
    told = {size.label: size for size in sizes.sizes(plan, tmp_path, {"generate@teacher": 5.0, "generate@base": 5.0})}
    assert told["ingest@tasks"].measured and told["acquire@teacher"].measured
    coming = [size for size in told.values() if not size.measured and size.bytes is not None]
    assert {size.label.partition("@")[0] for size in coming} == {
        "generate", "score", "read", "select", "pack", "probe", "train", "evaluate",
    }  # fmt: skip
    ratios = {}
    for size in coming:
        is_there = sum(file.stat().st_size for file in (finished.data / size.folder).rglob("*") if file.is_file())
        ratios[size.label] = round((size.bytes or 0) / is_there, 2)
    assert {label: ratio for label, ratio in ratios.items() if not 0.5 <= ratio <= 2} == {}, ratios
    shown = sizes.lines(list(told.values()), str)
    assert shown[0].startswith("on the disk, to a factor of two: ") and "not told: " in shown[-1]
