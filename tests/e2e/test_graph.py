"""The promises of the graph, on the real `dvc.yaml` and the real stages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import Workspace, make_workspace

pytestmark = pytest.mark.e2e


def test_a_second_run_does_nothing(done: Workspace) -> None:
    assert done.repro() == []


def test_an_unused_scorer_trains_nothing(done: Workspace) -> None:
    def add(params: dict) -> None:
        params["score"]["margin"] = {"of": "responses/train", "use": "consistency.margin"}

    done.edit(add)
    ran = done.repro()
    assert "score@margin" in ran
    assert not [
        name for name in ran if name.split("@")[0] in {"generate", "read", "pack", "probe", "train", "evaluate"}
    ]


def test_a_comment_runs_plan_only(done: Workspace) -> None:
    path = done.root / "pipeline" / "scorers" / "consistency.py"
    path.write_text("# a remark\n" + path.read_text("utf-8"), "utf-8")
    assert done.repro() == ["plan"]


def test_an_edited_scorer_is_not_silent(done: Workspace) -> None:
    path = done.root / "pipeline" / "scorers" / "heuristic.py"
    path.write_text(path.read_text("utf-8") + "\n\nCHANGED = 1\n", "utf-8")
    ran = done.repro()
    assert "score@format" in ran and "score@agreement" not in ran
    assert not [name for name in ran if name.startswith(("generate", "train"))]


def test_an_instance_added_and_removed_restores_the_lock(done: Workspace) -> None:
    before, params = done.lock(), done.params()
    done.edit(lambda p: p["score"].update(margin={"of": "responses/train", "use": "consistency.margin"}))
    done.repro()
    (done.root / "params.yaml").write_text((done.root / "params.yaml").read_text("utf-8"), "utf-8")
    done.edit(lambda p: (p.clear(), p.update(params)))
    done.repro()
    done.run("stillhouse", "tidy")
    assert done.lock() == before
    assert not (done.data / "scores/responses/train/margin").exists()


def test_clone_pull_repro_runs_nothing(done: Workspace, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    done.dvc("remote", "add", "-d", "store", str(remote))
    done.dvc("push", "-q")
    done.run("git", "add", "-A")
    done.run("git", "commit", "-qm", "remote")
    clone = tmp_path / "clone"
    done.run("git", "clone", "-q", str(done.root), str(clone))
    there = Workspace(clone, done.env)
    there.dvc("pull", "-q")
    assert there.repro() == []


def test_a_typo_leaves_everything_but_plan_clean(done: Workspace) -> None:
    done.edit(lambda p: p["train"]["kd"].update(epoch=3))
    failed = done.dvc("repro", check=False)
    assert failed.returncode != 0
    assert "train.kd.epoch: no such parameter; did you mean epochs?" in failed.stderr
    assert "Traceback" not in failed.stderr
    status = json.loads(done.dvc("status", "--json").stdout)
    assert list(status) == ["plan"]


def test_workers_and_batches_change_no_byte(finished: Workspace, env: dict[str, str], tmp_path: Path) -> None:
    other = make_workspace(tmp_path / "other", env)
    other.edit(lambda p: p["run"].update(executor="processes", workers=3, batch_rows=48))
    other.repro()
    assert other.hashes() == finished.hashes()


def test_a_deleted_output_alone_is_made_again(done: Workspace) -> None:
    before = done.hashes()
    shutil.rmtree(done.data / "selections" / "responses" / "train" / "coverage")
    ran = done.repro("--no-run-cache", "--force", "--single-item", "select@coverage")
    assert ran == ["select@coverage"]
    assert done.repro() == []
    assert done.hashes() == before


def test_a_forced_single_item_refuses_an_old_plan(done: Workspace) -> None:
    done.edit(lambda p: p["train"]["kd"].update(epochs=2))
    failed = done.dvc("repro", "-sf", "train@kd", check=False)
    assert failed.returncode != 0
    assert "the plan is older than params.yaml" in failed.stderr and "params.epochs" in failed.stderr


def test_an_experiment_runs_its_cone(done: Workspace) -> None:
    ran = done.dvc("exp", "run", "-S", "train.kd.epochs=2")
    names = {line.split("'")[1] for line in ran.stdout.splitlines() if line.startswith("Running stage '")}
    assert names == {"plan", "train@kd", "evaluate@kd", "report"}


def test_a_pass_through_stage_is_noticed(done: Workspace) -> None:
    """The promises above are worth something only if a stage that does nothing breaks them."""
    path = done.root / "pipeline" / "stages" / "select.py"
    text = path.read_text("utf-8")
    path.write_text(
        text.replace('"kept"', '"kept_"', 1) if '"kept"' in text else text + "\nraise SystemExit(1)\n", "utf-8"
    )
    assert done.dvc("repro", check=False).returncode != 0
