"""Gate: says which expectation failed, on which rows and where to look; passes in silence."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance
from pipeline.errors import GateFailed
from pipeline.stages import gate

FINDING = {
    "name": "seeds", "about": "no two samples share a seed", "kind": "ExpectColumnValuesToBeUnique",
    "kwargs": {"column": "drawn"}, "expected": "unique", "success": True, "observed": 1.0, "checked": 24,
    "unexpected": 0, "offending": [],
}  # fmt: skip
ROWS = {
    "name": "rows", "about": "the table has rows", "kind": "ExpectTableRowCountToBeBetween",
    "kwargs": {"min_value": 100}, "expected": "at least 100", "success": False, "observed": 24, "offending": [],
}  # fmt: skip


def run(data: Path, *expectations: dict) -> Path:
    folder = data / "quality" / "responses" / "train" / "answers"
    folder.mkdir(parents=True)
    verdict = {
        "of": "responses/train", "suite": "responses", "rows": 24, "expectations": expectations,
        "success": all(e["success"] for e in expectations),
    }  # fmt: skip
    (folder / "verdict.json").write_text(json.dumps(verdict))
    params = gate.Params.model_validate({"of": "responses/train", "suite": "responses"})
    instance = Instance(
        "gate",
        "answers",
        params,
        {"verdicts": ("quality/responses/train",)},
        params.output("answers"),
        "code",
    )
    run_instance(instance, RunSettings(), data, data)
    return data / "gates" / "responses" / "train" / "answers" / "gate.json"


def test_a_table_that_passes_leaves_a_small_file(tmp_path: Path) -> None:
    written = json.loads(run(tmp_path, FINDING).read_text())
    assert written == {"of": "responses/train", "suite": "responses", "passed": True}


def test_a_table_that_fails_stops_and_says_why(tmp_path: Path) -> None:
    rows = [{"response_id": f"r{i}", "excerpt": "red \x1b[31m", "drawn": "made 7"} for i in range(5)]
    seeds = {**FINDING, "success": False, "observed": 0.75, "unexpected": 6, "offending": rows}
    with pytest.raises(GateFailed) as stopped:
        run(tmp_path, seeds, ROWS)
    text = str(stopped.value)
    assert stopped.value.exit_code == 65
    assert "seeds: no two samples share a seed. Expected unique, observed 0.75 (6 of 24 rows fail)" in text
    assert "rows: the table has rows. Expected at least 100, observed 24" in text
    assert all(f"response_id='r{i}'" in text for i in range(5))
    assert "\x1b" not in text
    assert "quality/responses/train/answers/docs/index.html" in text
    assert "quality.answers.bounds" in text
    assert not (tmp_path / "gates").exists()


def test_a_gate_loads_nothing_heavy() -> None:
    code = (
        "import sys; from pipeline.stages import gate; heavy = {'great_expectations', 'pandas', 'torch', 'duckdb'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
