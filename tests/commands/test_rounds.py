"""`stillhouse rounds`: what every round has brought, from the report's numbers and the tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.contracts import EXAMPLES
from pipeline.tables import parquet

TEMPLATE = {"train": {"kd_<round>": {"of": "examples/kd_<round>", "student": "kd_<before>"}}}


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Two rounds that are written, of which the first has run: it gained 5 points."""
    monkeypatch.chdir(tmp_path)
    numbers = {"accuracy": 0.55, "minus_base": 0.05, "low_minus_base": 0.01, "high_minus_base": 0.09}
    report = Path("data/reports/metrics.json")
    report.parent.mkdir(parents=True)
    report.write_text(json.dumps({"base": {"accuracy": 0.5}, "kd_1": numbers}), "utf-8")
    told = {"domain": "d", "spans": [{"start": 0, "end": 1}], "weight": 1.0, "response_ids": []}
    hashes = {"template_hash": "", "tokenizer_hash": ""}
    rows = [
        {"example_id": f"0000000{i}", "prompt_id": f"0000000{i}", "token_ids": tokens, **told, **hashes}
        for i, tokens in enumerate([[1, 2, 3], [1, 2, 4]])
    ]
    parquet.write(EXAMPLES, Path("data/examples/kd_1"), 1, [EXAMPLES.rows(rows)])
    return {
        "rounds": TEMPLATE,
        "train": {f"kd_{n}": {"of": f"examples/kd_{n}", "student": f"kd_{n - 1}"} for n in (1, 2)},
        "evaluate": {"base": {"model": "kd_0"}, "kd_1": {"model": "kd_1"}, "kd_2": {"model": "kd_2"}},
    }


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
