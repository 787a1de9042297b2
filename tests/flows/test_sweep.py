"""A sweep over DVC's queue, and the table that it ends in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from flows import sweep as flow
from flows.sweep import SweepError, Trial, rows, told, trials

SCRIPT = """
import json, yaml
p = yaml.safe_load(open("params.yaml"))
assert p["x"] < 9
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


@pytest.mark.long
def test_a_sweep_is_run_once_and_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.py").write_text(SCRIPT, "utf-8")
    stage = {"cmd": f"{sys.executable} run.py", "params": ["x", "seed"], "metrics": [{"m.json": {"cache": False}}]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"a": stage}}), "utf-8")
    (tmp_path / "params.yaml").write_text("x: 1\nseed: 0\n", "utf-8")
    author = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    dvc = (sys.executable, "-m", "dvc")
    for command in (
        ("git", "init", "-q"),
        (*dvc, "init", "-q"),
        ("git", "add", "-A"),
        ("git", *author, "commit", "-qm", "1"),
    ):
        subprocess.run(command, cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    monkeypatch.setattr(flow, "get_run_logger", lambda: SimpleNamespace(info=said.append))
    monkeypatch.setattr(flow, "create_table_artifact", lambda table, **_: said.append(f"{len(table)} lines"))

    done = flow.sweep.fn("kd", ["x=2,3"], "seed=1,2")
    assert done.message is not None and "x=3: 3.15" in done.message and "1 (1 to 1) above the first" in done.message
    assert said == ["4 of 4 experiments are to be run", "2 lines"]
    failed = flow.sweep.fn("kd", ["x=2,9"], "seed=1,2")
    assert said[2:] == ["2 of 4 experiments are to be run"]
    assert failed.message is not None and "x=9 seed=1" in failed.message and "has no accuracy of kd" in failed.message
