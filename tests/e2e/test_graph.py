"""The promises of the graph, on the real `dvc.yaml` and the real stages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.contracts import SCORES, SELECTIONS
from pipeline.tables.parquet import Scan
from tests.e2e.browser import CHROMIUM, visit
from tests.e2e.conftest import Workspace

pytestmark = pytest.mark.e2e


COSTLY = {"generate", "read", "pack", "probe", "train", "evaluate"}


def test_a_second_run_does_nothing(done: Workspace) -> None:
    assert done.repro() == []


def test_an_edited_scorer_is_not_silent(done: Workspace) -> None:
    path = done.root / "pipeline" / "scorers" / "heuristic.py"
    path.write_text(path.read_text("utf-8") + "\n\nCHANGED = 1\n", "utf-8")
    ran = done.repro()
    assert "score@format" in ran and "score@agreement" not in ran
    assert not [name for name in ran if name.startswith(("generate", "train"))]


def test_clone_pull_repro_runs_nothing_and_sections_may_be_left_out(done: Workspace, tmp_path: Path) -> None:
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

    def leave_out(params: dict) -> None:
        del params["gaps"], params["read"], params["probe"]
        del params["train"]["kd"], params["evaluate"]["kd"], params["quality"]["kd_signals"]

    assert "distill" not in there.params()
    there.edit(leave_out)
    ran = there.repro()
    assert "report" in ran and not [name for name in ran if name.split("@")[0] in COSTLY]
    # A clone has every folder that the report depends on, also where nothing fills it.
    stages = yaml.safe_load((clone / "dvc.yaml").read_text("utf-8"))["stages"]
    kept = there.run("git", "ls-files", "data").stdout.split()
    assert [dep for dep in stages["report"]["deps"] if dep.count("/") == 1 and f"{dep}/.gitkeep" not in kept][1:] == []


def test_a_typo_leaves_everything_but_plan_clean(done: Workspace) -> None:
    done.edit(lambda p: p["train"]["kd"].update(epoch=3))
    failed = done.dvc("repro", check=False)
    assert failed.returncode != 0
    assert "train.kd.epoch: no such parameter; did you mean epochs?" in failed.stderr
    assert "Traceback" not in failed.stderr
    status = json.loads(done.dvc("status", "--json").stdout)
    assert list(status) == ["plan"]
    done.edit(lambda p: p["train"]["kd"].pop("epoch"))
    assert done.repro() == []


def test_clones_workers_and_batches_change_no_byte(finished: Workspace, again: tuple[Workspace, str]) -> None:
    assert again[0].hashes() == finished.hashes()


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


def test_metrics_have_a_row_per_model(finished: Workspace) -> None:
    rows = finished.dvc("metrics", "show", "--md").stdout.splitlines()
    models = sorted(line.split("|")[1].strip() for line in rows[2:] if line)
    assert models == [f"data/reports/metrics/{m}.json" for m in ("base", "coverage_sft", "kd", "random_sft", "teacher")]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_of_plots_opens_offline(finished: Workspace, tmp_path: Path) -> None:
    finished.dvc("plots", "show", "-q", "-o", str(tmp_path))
    page = tmp_path / "index.html"
    seen = visit(page, "[...document.querySelectorAll('canvas, svg.marks')].map(c => c.getBoundingClientRect().height)")
    assert seen.requests == [page.as_uri()]
    (heights,) = seen.answers
    # A curve for each of three trainings, and the domains of five models.
    assert len(heights) == 8 and min(heights) > 100


def idle(workspace: Workspace) -> set[str]:
    """The stages that let everything pass as it came."""
    data = workspace.data
    chosen = Scan(SELECTIONS, (data / "selections/responses/train/random",)).read(["kept"])["kept"].to_pylist()
    right = Scan(SCORES, (data / "scores/responses/train/verified",)).read(["score"])["score"].to_pylist()
    weights = [(data / "models" / name / "model.safetensors").read_bytes() for name in ("base", "random_sft")]
    found = {"select": all(chosen), "score": len(set(right)) < 2, "train": weights[0] == weights[1]}
    return {stage for stage, passes in found.items() if passes}


PASS_THROUGH = {
    "select": ("kept=pa.array(kept)", "kept=pa.array(np.ones(len(some), bool))", "select@random"),
    "score": (
        "SCORES.batch(**scorer(given),",
        "SCORES.batch(score=[1.0] * len(rows), quantities=[[]] * len(rows),",
        "score@verified",
    ),
    "train": (
        "fit(params, rows, student, None, out, how, name, data, notes)",
        "import shutil; shutil.copytree(student, out, dirs_exist_ok=True)",
        "train@random_sft",
    ),
}


@pytest.mark.parametrize("stage", PASS_THROUGH)
def test_a_stage_that_lets_everything_pass_is_noticed(finished: Workspace, done: Workspace, stage: str) -> None:
    assert idle(finished) == set()
    old, new, label = PASS_THROUGH[stage]
    path = done.root / "pipeline" / "stages" / f"{stage}.py"
    text = path.read_text("utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), "utf-8")
    done.repro("plan")
    done.repro("--single-item", label)
    assert idle(done) == {stage}
