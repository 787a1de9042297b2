"""A sweep over DVC's queue, and the table that it ends in."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml

from flows import sweep as flow
from flows.sweep import SweepError, Trial, rows, told, trials
from tests.flows.conftest import Served, environment, until

SCRIPT = """
import json, time, yaml
p = yaml.safe_load(open("params.yaml"))
assert p["x"] < 9
time.sleep(300 if p["x"] == 7 else 0)
json.dump({"kd": {"accuracy": p["x"] + p["seed"] / 10}}, open("m.json", "w"))
"""


def test_every_combination_has_every_seed_and_a_name_of_its_own() -> None:
    found = trials(["a=1,2", "b=x"], "seed=1,2,3")
    assert found[0] == Trial(("a=1", "b=x"), "seed=1")
    assert len(found) == len({trial.name for trial in found}) == 6
    assert trials([], "seed=1,2") == [Trial((), "seed=1"), Trial((), "seed=2")]
    for wrong in ("a", "a=", "=1", "a=1,,2"):
        with pytest.raises(SweepError, match="is no list of values"):
            trials([wrong], "seed=1")


def test_differences_are_paired_by_seed_and_hold_together() -> None:
    # Student's point of 3 values is 4.303 at 95 %, and 6.205 where two differences share the 5 %.
    found = {(name,): {"1": a, "2": a + 1, "3": a + 2} for name, a in (("x", 1.0), ("y", 2.0), ("z", 1.0))}
    found["z",]["3"] = 6.0
    table = rows(found)
    assert [row["mean"] for row in table] == [2, 3, 3]
    assert table[0]["mean_low"] == pytest.approx(2 - 4.303 / 3**0.5, abs=1e-3)
    assert "above_the_first" not in table[0] and table[1]["above_the_first_low"] == 1
    assert table[2]["above_the_first_high"] == pytest.approx(1 + 6.205, abs=1e-3)
    assert told(table[1]) == "y: 3 (0.5159 to 5.484) over 3 seeds, 1 (1 to 1) above the first"
    assert told(rows({("x",): {"1": 0.5}})[0]) == "x: 0.5 over 1 seeds"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of one stage whose number hangs on its parameters."""
    (tmp_path / "run.py").write_text(SCRIPT, "utf-8")
    stage = {"cmd": f"{sys.executable} run.py", "params": ["x", "seed"], "metrics": [{"m.json": {"cache": False}}]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"a": stage}}), "utf-8")
    (tmp_path / "params.yaml").write_text("x: 1\nseed: 0\n", "utf-8")
    author = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    for command in (
        ("git", "init", "-q"),
        (sys.executable, "-m", "dvc", "init", "-q"),
        ("git", "add", "-A"),
        ("git", *author, "commit", "-qm", "1"),
    ):
        subprocess.run(command, cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.long
def test_a_sweep_is_run_once_and_goes_on_where_it_stopped(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    said: list[str] = []
    monkeypatch.setattr(flow, "get_run_logger", lambda: SimpleNamespace(info=said.append))
    monkeypatch.setattr(flow, "create_table_artifact", lambda table, **_: said.append(f"{len(table)} lines"))
    monkeypatch.setattr(flow, "obeying", lambda *_: nullcontext())

    done = flow.sweep.fn("kd", ["x=2,3"], "seed=1,2")
    assert done.message is not None and "x=3: 3.15" in done.message and "1 (1 to 1) above the first" in done.message
    assert said == ["4 of 4 experiments are to be run", "2 lines"]
    failed = flow.sweep.fn("kd", ["x=2,9"], "seed=1,2")
    assert said[2:] == ["2 of 4 experiments are to be run"]
    assert failed.message is not None and "x=9 seed=1" in failed.message and "has no accuracy of kd" in failed.message


def running(repository: Path) -> Iterator[str]:
    """The commands of stages that are alive in a repository or in a copy of it."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command = " ".join(process.info["cmdline"] or [])
        if str(process.info["cwd"]).startswith(str(repository)) and command.endswith(" run.py"):
            yield command


@pytest.mark.long
@pytest.mark.slow_server
@pytest.mark.parametrize("how", ["cancelled", "interrupted"])
def test_whoever_ends_a_sweep_ends_its_experiments(repository: Path, served: Served, how: str) -> None:
    """One has run, one runs, one waits: the first is kept, and neither of the others goes on without the sweep."""
    url = str(served.api.base_url).rstrip("/")
    child = subprocess.Popen(
        [sys.executable, "-m", "flows.sweep", "kd", "-S", "x=2,7", "--seeds", "seed=1,2"], cwd=repository,
        env=environment(PREFECT_API_URL=url), stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        until(lambda: any(running(repository)) and len(list(repository.glob(".dvc/tmp/exps/run/*/*.out"))) >= 3, 120)
        if how == "cancelled":
            now = {"state": {"type": {"any_": ["RUNNING"]}}}
            (run,) = served.filter("flow_runs", flows={"name": {"any_": ["sweep"]}}, flow_runs=now)
            served.post(f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})
        else:
            child.send_signal(signal.SIGINT)
        told, _ = child.communicate(timeout=120)
        assert child.returncode == 130 and "the same sweep goes on with the others" in told
        until(lambda: not any(running(repository)), 10)
        listed = subprocess.run(
            [sys.executable, "-m", "dvc", "queue", "status"], cwd=repository, capture_output=True, text=True, check=True
        ).stdout
        assert "Running" not in listed and "Queued" not in listed and listed.count("Success") == 2
    finally:
        child.kill()
