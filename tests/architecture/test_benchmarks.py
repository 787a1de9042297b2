"""The page of the benchmarks says what their results say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import recipes, tables
from benchmarks.made_by import made_by
from pipeline.core import methods
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


KEPT = recipes.kept()


def test_the_page_of_methods_shows_the_results_of_now() -> None:
    assert recipes.PAGE.read_text("utf-8") == recipes.page(KEPT), "run `make recipes`"


def test_every_trial_has_figures_and_every_figure_is_of_a_proof() -> None:
    assert recipes.TRIALS.keys() <= KEPT.keys() <= recipes.TRIALS.keys() | recipes.GRAPHS.keys()


@pytest.mark.parametrize("name", KEPT)
def test_figures_were_made_by_this_code_on_seeds_that_chose_nothing(name: str) -> None:
    seeds = recipes.SEEDS if name in recipes.TRIALS else recipes.GRAPH_SEEDS
    assert KEPT[name]["made_by"] == recipes.made_now(name), "out of date: `make recipes`"
    assert list(map(int, KEPT[name]["figures"])) == list(seeds) and not {1, 2} & {*seeds}


@pytest.mark.parametrize("name", recipes.TRIALS)
def test_a_trial_names_methods_and_says_what_it_claims(name: str) -> None:
    trial = recipes.TRIALS[name]
    assert trial.claim.endswith(".") and trial.control and trial.measure
    for kind, method in trial.methods:
        assert method in methods.available(kind)


FIGURES = {
    "over": ([[3.0, 1.0], [3.2, 1.0], [3.0, 1.2]], "helps"),
    "under": ([[1.0, 3.0], [1.0, 3.2], [1.2, 3.0]], "does not help"),
    "either": ([[1.0, 2.0], [3.0, 2.0], [2.0, 2.0]], "no gain"),
    "same": ([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], "no gain"),
}


@pytest.mark.parametrize("case", FIGURES)
@pytest.mark.parametrize("less", [False, True])
def test_the_verdict_follows_the_interval(case: str, less: bool) -> None:
    figures, said = FIGURES[case]
    table = np.array(figures)
    row = recipes.Row("a", "m", "c", "c", "x", less, table[:, ::-1] if less else table, "2026-01-01")
    assert row.cells()[9] == said
