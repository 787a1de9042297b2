"""Rounds go on until a rule says stop."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from prefect.states import Completed, Failed, State

from flows import rounds as flow
from flows.rounds import RoundsError, Row, Stop
from tests.flows.conftest import Served, environment, until


def row(number: int, gain: float = 2.0, diversity: float = 100.0, cost: float = 0.0) -> Row:
    return Row(number, f"kd_{number}", 50.0, gain, gain - 1, gain + 1, diversity, cost)


WHY = {
    "nothing yet": (Stop(), [], None),
    "it goes on": (Stop(), [row(1)], None),
    "enough": (Stop(most=2), [row(1), row(2)], "2 rounds are done"),
    "no gain": (Stop(), [row(1), row(2, gain=0.5)], "no significant gain in 1 round"),
    "patience": (Stop(patience=2), [row(1), row(2, gain=0.5)], None),
    "no more patience": (Stop(patience=2), [row(1, gain=0.0), row(2, gain=0.5)], "no significant gain in 2 rounds"),
    "less diverse": (Stop(), [row(1), row(2, diversity=49.0)], "diversity fell to 49.0 of 100.0 in the first round"),
    "cost": (Stop(max_cost=3), [row(1, cost=3.5)], "answers have cost 3.50 of 3.00 US dollars"),
}


@pytest.mark.parametrize("case", WHY)
def test_why_no_round_follows(case: str) -> None:
    stop, rows, why = WHY[case]
    assert stop.why(rows) == why


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, in a world where a round gains 20, 10, 0 points, and in the fourth a gate fails."""
    done: list[str] = []
    count = {"written": 0, "run": 0}

    def stillhouse(verb: str, *arguments: str) -> str:
        if verb == "unroll":
            done.append("unroll")
            count["written"] += 1
            return ""
        rows = [asdict(row(n, gain=30 - 10 * n)) for n in range(1, count["run"] + 1)]
        return json.dumps({"written": count["written"], "rounds": rows})

    def distill(return_state: bool) -> State:
        done.append("distill")
        if count["written"] > 3:
            return Failed(name="Gate failed")
        count["run"] = count["written"]
        return Completed(name="Ran")

    monkeypatch.setattr(flow, "_stillhouse", stillhouse)
    monkeypatch.setattr(flow, "distill", distill)
    monkeypatch.setattr(flow, "create_table_artifact", lambda table, **_: done.append(f"{len(table)} rows"))
    monkeypatch.setattr(flow, "get_run_logger", logging.getLogger)
    return done


def test_rounds_stop_where_nothing_is_gained_and_go_on_where_they_stopped(asked: list[str]) -> None:
    state = flow.rounds.fn("kd")
    assert (state.name, state.message) == ("Stopped", "no significant gain in 1 round; the last student is kd_3")
    ran = ["unroll", "distill"]
    assert asked == [*ran, "1 rows", *ran, "2 rows", *ran, "3 rows"]
    asked.clear()
    # Once more: what is there is told again, and no round is written.
    assert flow.rounds.fn("kd").message == state.message
    assert asked == ["3 rows"]
    # A round that was written and did not run to its end is not written twice.
    assert [flow.rounds.fn(patience=2).name for _ in "ab"] == ["Gate failed"] * 2
    assert asked.count("unroll") == 1


def test_a_command_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RoundsError, match=r"stillhouse unroll failed: unroll: params\.yaml is missing"):
        flow._stillhouse("unroll", "--rounds", "1")


# `flows.rounds` where a round is written and has not run, whatever the parameters say.
BY_HAND = """
import json, sys
from flows import rounds
rounds._stillhouse = lambda verb, *rest: json.dumps({"written": 1, "rounds": []})
sys.exit(rounds.main(["kd"]))
"""


@pytest.mark.slow_server
@pytest.mark.parametrize("how", ["cancelled", "interrupted"])
def test_whoever_ends_the_rounds_ends_the_run_in_them(served: Served, how: str) -> None:
    (served.repo / "pause").write_text("300\n", "utf-8")
    for name in ("left.here", "right.here", "once"):
        (served.repo / name).touch()
    url = str(served.api.base_url).rstrip("/")
    child = subprocess.Popen(
        [sys.executable, "-c", BY_HAND], cwd=served.repo, env=environment(PREFECT_API_URL=url),
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        until(lambda: any("sleep 300" in command for command in served.children()))
        if how == "cancelled":
            running = {"state": {"type": {"any_": ["RUNNING"]}}}
            (run,) = served.filter("flow_runs", flows={"name": {"any_": ["rounds"]}}, flow_runs=running)
            served.post(f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})
        else:
            child.send_signal(signal.SIGINT)
        told, _ = child.communicate(timeout=60)
        # Whatever else ran beside it is told in the same list.
        assert child.returncode == 130 and re.search(r"Cancelled: [^;:]*\bslow\b", told)
        assert served.children() == []
    finally:
        child.kill()
        (served.repo / "pause").write_text("0\n", "utf-8")
