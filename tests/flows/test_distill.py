"""The flow, through a real server: one task per instance, and what became of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.flows.conftest import NAMES, ROOT, Served, dvc, environment, make_repository, until


@pytest.fixture
def done(served: Served) -> Iterator[Served]:
    """The served flow over a repository in which nothing has changed."""
    bring_up_to_date(served.repo)
    yield served
    (served.repo / "verdict").write_text("good\n", "utf-8")
    (served.repo / "pause").write_text("0\n", "utf-8")


def bring_up_to_date(repo: Path) -> None:
    """What a user does without Prefect."""
    for name in ("left.here", "right.here", "once"):  # dvc runs nothing side by side, and repeats nothing
        (repo / name).touch()
    assert dvc(repo, "repro").returncode == 0


@pytest.mark.slow_server
def test_a_run_gives_what_dvc_repro_gives_and_branches_run_side_by_side(served: Served, tmp_path: Path) -> None:
    run = served.run()
    assert (run.type, run.state) == ("COMPLETED", "Ran")
    assert run.states == dict.fromkeys(NAMES, "Ran")
    assert run.tasks["flaky"]["run_count"] == 2  # exit code 75 is tried again

    alone = make_repository(tmp_path / "alone")
    bring_up_to_date(alone)
    locks = [yaml.safe_load((repo / "dvc.lock").read_text("utf-8")) for repo in (alone, served.repo)]
    assert locks[0] == locks[1]
    assert dvc(served.repo, "status", "--json").stdout.strip() == "{}"

    again = served.run()
    assert (again.type, again.state) == ("COMPLETED", "Nothing changed")
    assert again.states == dict.fromkeys(NAMES, "Nothing changed")


@pytest.mark.slow_server
def test_a_gate_that_fails_stops_exactly_what_waits_for_it(done: Served) -> None:
    (done.repo / "verdict").write_text("bad: ```<script>alert(1)</script>\n", "utf-8")
    run = done.run()
    assert (run.type, run.state) == ("FAILED", "Gate failed")
    stopped = {"check": "Gate failed", "join": "NotReady", "last": "NotReady"}
    assert run.states == {name: stopped.get(name, "Nothing changed") for name in NAMES}
    assert run.tasks["check"]["run_count"] == 1
    artifact = done.filter("artifacts", artifacts={"key": {"any_": ["gate-check"]}})[0]
    assert artifact["data"] == "````text\nbad: ```<script>alert(1)</script>\n````"
    table = json.loads(
        str(done.filter("artifacts", artifacts={"key": {"any_": ["instances"]}}, sort="CREATED_DESC")[0]["data"])
    )
    row = next(row for row in table if row["instance"] == "check")
    assert row["state"] == "Gate failed" and row["seconds"] > 0 and "<" not in row["message"]
    (told,) = [h for h in done.heard if h["path"] == "/own" and h["subject"] == "repository: Gate failed"]
    assert "Gate failed: check; " in told["text"] and "\n\ncheck:\nbad: ```<script>" in told["text"]


@pytest.mark.slow_server
def test_a_cap_ends_the_run_and_is_not_tried_again(done: Served) -> None:
    (done.repo / "verdict").write_text("cap\n", "utf-8")
    run = done.run()
    assert (run.type, run.state) == ("FAILED", "Cap reached")
    assert run.states["check"] == "Cap reached"
    assert run.tasks["check"]["run_count"] == 1


@pytest.mark.slow_server
def test_one_instance_is_run_again_alone_and_its_lines_are_in_its_log(done: Served) -> None:
    run = done.run(targets=["check"], force=True)
    assert run.states == {"first": "Nothing changed", "left": "Nothing changed", "check": "Ran"}
    task = str(run.tasks["check"]["id"])

    def lines() -> set[str]:
        return {str(line["message"]) for line in done.filter("logs", logs={"task_run_id": {"any_": [task]}})}

    until(lambda: "good" in lines())
    assert "good" in (done.repo / "data/.runs/logs/check.log").read_text("utf-8").splitlines()


@pytest.mark.slow_server
def test_cancelling_leaves_nothing_behind(done: Served) -> None:
    (done.repo / "pause").write_text("300\n", "utf-8")
    identity = done.start()
    until(lambda: any("sleep 300" in command for command in done.children()))
    done.post(f"/flow_runs/{identity}/set_state", {"state": {"type": "CANCELLING"}})
    run = done.ended(identity)
    assert run.type == "CANCELLED"
    stopped = {"slow": "Cancelled", "after": "NotReady"}
    assert run.states == {name: stopped.get(name, "Nothing changed") for name in NAMES}
    assert done.children() == []
    assert not any(json.loads((done.repo / ".dvc/tmp/rwlock").read_text("utf-8")).values())
    assert set(json.loads(dvc(done.repo, "status", "--json").stdout)) == {"slow", "after"}


@pytest.mark.slow_server
def test_a_run_that_is_paused_starts_nothing_until_it_is_resumed(done: Served) -> None:
    (done.repo / "pause").write_text("5\n", "utf-8")
    identity = done.start()
    until(lambda: any("sleep 5" in command for command in done.children()))
    answer = done.post(f"/flow_runs/{identity}/set_state", {"state": {"type": "PAUSED"}}).json()
    assert answer["status"] == "ACCEPT", answer
    until(lambda: not done.children())
    time.sleep(3)  # in which what waits would have begun
    run = done.look(identity)
    assert run.type == "PAUSED" and run.states["slow"] == "Ran" and run.tasks["after"]["state_type"] == "RUNNING"
    assert done.children() == []
    done.post(f"/flow_runs/{identity}/resume", {})
    run = done.ended(identity)
    assert run.type == "COMPLETED" and run.states["after"] == "Nothing changed"


@pytest.mark.slow_server
def test_a_check_looks_at_what_is_there_and_no_two_deployments_run_side_by_side(done: Served) -> None:
    check = done.api.get("/deployments/name/distill/check").raise_for_status().json()
    assert check["parameters"] == {"checks": True}
    (done.repo / "pause").write_text("4\n", "utf-8")
    (done.repo / "verdict").write_text("good enough\n", "utf-8")
    first = done.start()
    until(lambda: any("sleep 4" in command for command in done.children()))
    second = done.ended(done.start(check["id"], checks=True))
    assert done.ended(first).type == second.type == "COMPLETED"
    assert second.states == {"check": "Nothing changed"}
    ended = done.api.get(f"/flow_runs/{first}").raise_for_status().json()["end_time"]
    assert ended <= str(second.tasks["check"]["start_time"])


@pytest.mark.slow_server
def test_a_block_of_prefects_is_told_too(done: Served) -> None:
    (kind,) = done.filter("block_types", block_types={"slug": {"any_": ["custom-webhook"]}})
    (schema,) = done.filter("block_schemas", block_schemas={"block_type_id": {"any_": [kind["id"]]}})[:1]
    content = {"name": "Ours", "url": f"{done.ear}/block", "allow_private_urls": True}
    content["json_data"] = {"said": "{{subject}}: {{body}}"}
    body = {"name": "ours", "data": content, "block_type_id": kind["id"], "block_schema_id": schema["id"]}
    done.post("/block_documents/", body)
    (done.repo / "verdict").write_text("cap\n", "utf-8")
    assert done.run().state == "Cap reached"
    (told,) = [h for h in done.heard if h["path"] == "/block"]
    assert told["said"].startswith("repository: Cap reached: ") and "check:\ncap" in told["said"]


@pytest.mark.slow_server
def test_a_deployment_works_in_the_folder_it_was_made_in(served: Served, tmp_path: Path) -> None:
    (served.repo / "prefect.yaml").write_text((ROOT / "prefect.yaml").read_text("utf-8"), "utf-8")
    url = str(served.api.base_url).rstrip("/")
    # A program that changes its folder leaves PWD as it was.
    settings = environment(PREFECT_HOME=str(tmp_path), PREFECT_API_URL=url, PWD=str(tmp_path))
    for command in (["work-pool", "create", "--type", "process", "local"], ["--no-prompt", "deploy", "--all"]):
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *command], cwd=served.repo, env=settings, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
    (step,) = served.api.get("/deployments/name/distill/worker").raise_for_status().json()["pull_steps"]
    assert step == {"prefect.deployments.steps.set_working_directory": {"directory": str(served.repo.resolve())}}


def test_when_nothing_changed_no_server_is_started(repository: Path, tmp_path: Path) -> None:
    bring_up_to_date(repository)
    home = tmp_path / "home"
    assert by_hand(home) == (0, "nothing changed\n")
    code, said = by_hand(home, "modle")
    assert code == 1 and "did you mean model" in said
    assert not list(home.glob("*.db"))


def by_hand(home: Path, *targets: str) -> tuple[int, str]:
    """Run the flow from a shell; its exit code and what it says."""
    run = subprocess.run(
        [sys.executable, "-m", "flows", *targets], env=environment(PREFECT_HOME=str(home)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return run.returncode, run.stdout
