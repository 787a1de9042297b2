"""`stillhouse rounds`: what every round has brought, from the report's numbers and the tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from flows.rounds import Row, Stop
from pipeline.__main__ import main
from pipeline.commands.rounds import history
from pipeline.contracts import EXAMPLES
from pipeline.plan.rounds import with_rounds
from pipeline.tables import parquet

TEMPLATE = {"train": {"kd_<round>": {"of": "examples/kd_<round>", "student": "kd_<before>"}}}


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Two rounds that are written, of which the first has run: it gained 5 points."""
    monkeypatch.chdir(tmp_path)
    reported(base=0.5, kd_1=0.55)
    trained_on("kd_1", [1, 2, 3], [1, 2, 4])
    return {
        "rounds": TEMPLATE,
        "train": {f"kd_{n}": {"of": f"examples/kd_{n}", "student": f"kd_{n - 1}"} for n in (1, 2)},
        "evaluate": {"base": {"model": "kd_0"}, "kd_1": {"model": "kd_1"}, "kd_2": {"model": "kd_2"}},
    }


def reported(**accuracy: float) -> None:
    """What the report says of models, each of which gained 5 points, give or take 4, over the one before."""
    report = Path("data/reports/metrics.json")
    report.parent.mkdir(parents=True, exist_ok=True)
    before = [None, *accuracy]
    numbers = {
        name: {"accuracy": value}
        | ({f"minus_{other}": 0.05, f"low_minus_{other}": 0.01, f"high_minus_{other}": 0.09} if other else {})
        for (name, value), other in zip(accuracy.items(), before, strict=False)
    }
    report.write_text(json.dumps(numbers), "utf-8")


def trained_on(name: str, *texts: list[int]) -> None:
    """A table of examples of these tokens."""
    told = {"domain": "d", "spans": [{"start": 0, "end": 1}], "weight": 1.0, "response_ids": []}
    hashes = {"template_hash": "", "tokenizer_hash": ""}
    rows = [
        {"example_id": f"0000000{i}", "prompt_id": f"0000000{i}", "token_ids": tokens, **told, **hashes}
        for i, tokens in enumerate(texts)
    ]
    parquet.write(EXAMPLES, Path("data/examples") / name, 1, [EXAMPLES.rows(rows)])


def written(params: dict) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(params), "utf-8")


def test_a_round_that_has_run_is_told(params: dict, capsys: pytest.CaptureFixture[str]) -> None:
    written(params)
    assert main(["rounds", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["written"] == 2
    (row,) = found["rounds"]
    # Of four pairs of neighbours, three are distinct.
    assert row["diversity"] == 750 and row["cost_usd"] == 0
    assert row["gain"] == pytest.approx(5) and row["low"] == pytest.approx(1)
    assert main(["rounds", "kd"]) == 0
    told = "round 1: kd_1 55.0 %, +5.0 points (+1.0 to +9.0), diversity 750.0, cost 0.00 US dollars"
    assert told in capsys.readouterr().out


def test_a_student_that_imitates_less_and_less_is_stopped(params: dict, capsys: pytest.CaptureFixture[str]) -> None:
    """It gets better in both rounds; what the second is trained on says one thing over and over."""
    reported(base=0.5, kd_1=0.55, kd_2=0.6)
    trained_on("kd_2", [1, 2, 1, 2, 1, 2, 1], [2, 1, 2, 1, 2, 1, 2])
    written(params)
    assert main(["rounds", "--json"]) == 0
    rows = [Row(**row) for row in json.loads(capsys.readouterr().out)["rounds"]]
    assert [row.low for row in rows] == [pytest.approx(1)] * 2
    assert Stop().why(rows[:1]) is None
    assert Stop().why(rows) == "diversity fell to 166.7 of 750.0 in the first round"
    assert Stop(least_diversity=0.2).why(rows) is None


def test_a_round_is_chosen_by_what_the_one_before_gained(params: dict, capsys: pytest.CaptureFixture[str]) -> None:
    """The gain is read from the report: 5 points for the first choice, so the next is nothing else."""
    reported(base=0.5, kd_1=0.55)
    template = {"kd_<round>": {"of": "examples/kd_<round>", "student": "kd_<before>", "epochs": "<epochs>"}}
    params["rounds"] = {"train": template, "choose": {"by": "kd", "explore": 1, "epochs": [1, 9]}}
    params["train"] = {"kd_1": {"of": "examples/kd_1", "student": "kd_0", "epochs": 1}}
    found = history(params, "kd")
    assert [row["gain"] for row in found] == [pytest.approx(5)]
    gains = {row["round"]: row["gain"] for row in found}
    assert with_rounds(params, 1, gains)["train"]["kd_2"]["epochs"] == 1
    assert with_rounds(params, 1, {1: -5.0})["train"]["kd_2"]["epochs"] == 9


FAULTS = {
    "no section": ([], {"rounds": {}}, "params.yaml has no section `rounds:`"),
    "another training": (["kt"], {}, "which training is to be watched? rounds.train has kd, each named as kd_<round>"),
    "nothing asks the start": ([], {"evaluate": {"kd_1": {"model": "kd_1"}}}, "let evaluate ask kd_1 and kd_0"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_cannot_be_told_is_named(case: str, params: dict, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, change, told = FAULTS[case]
    written({**params, **change})
    assert main(["rounds", *arguments]) == 1
    assert told in capsys.readouterr().err
