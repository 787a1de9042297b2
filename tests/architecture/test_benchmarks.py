"""The page of the benchmarks says what their results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.made_by import made_by
from pipeline.plan.reading import load

ROOT = Path(__file__).parents[2]
EFFECT = ROOT / "benchmarks" / "results" / "default_effect.json"
PROOFS = json.loads((EFFECT.parent / "proofs.json").read_text("utf-8"))["recipes"]

# The effect of a run has a shape of its own.
RESULTS = sorted(set(EFFECT.parent.glob("*.json")) - {EFFECT})


def test_the_page_shows_the_results_of_now() -> None:
    page = tables.README.read_text("utf-8")
    assert page == tables.filled(page), "run `python benchmarks/tables.py`"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_says_when_on_what_and_of_which_commit(path: Path) -> None:
    found = json.loads(path.read_text("utf-8"))
    assert found.keys() >= {"date", "machine", "commit", "versions", "rounds", "rows"}
    # What costs less has a ratio, what teaches more a difference.
    assert all("method" in row and {"ratio", "difference"} & row.keys() for row in found["rows"])
    assert all(row.keys() == {"goal", "reached", "met"} for row in found["goals"])


def test_the_effect_was_made_by_this_code() -> None:
    kept = json.loads(EFFECT.read_text("utf-8"))
    assert kept["made_by"] == made_by(load(ROOT / "params.yaml")), "out of date: `make effect`"


@pytest.mark.parametrize("recipe", PROOFS)
def test_a_proof_was_made_by_this_code(recipe: str) -> None:
    now = made_by(load(ROOT / "recipes" / f"{recipe}.yaml"))
    assert PROOFS[recipe]["made_by"] == now, f"out of date: `python benchmarks/proofs.py --recipes {recipe}`"
