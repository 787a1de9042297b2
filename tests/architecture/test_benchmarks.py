"""The page of the benchmarks says what their results say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import conformance, recipes, tables
from benchmarks.made_by import made_by
from pipeline.core import methods
from pipeline.kinds.operator import ELICITED
from pipeline.plan.reading import load

ROOT = Path(__file__).parents[2]
EFFECT = ROOT / "benchmarks" / "results" / "default_effect.json"
PROOFS = json.loads((EFFECT.parent / "proofs.json").read_text("utf-8"))["recipes"]

# The effect of a run, and what a run has of every label, have shapes of their own.
RESULTS = sorted(set(EFFECT.parent.glob("*.json")) - {EFFECT, conformance.RESULT})


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


SURVEY = json.loads(conformance.RESULT.read_text("utf-8"))


def test_the_page_of_the_survey_shows_what_was_made_by_this_code() -> None:
    assert SURVEY["made_by"] == made_by(load(conformance.RECIPE)), "out of date: `make conformance`"
    assert conformance.PAGE.read_text("utf-8") == conformance.page(SURVEY)


@pytest.mark.parametrize("label", SURVEY["labels"], ids=lambda label: label["label"])
def test_every_label_has_rows_verdicts_a_cost_and_a_student_with_a_claim(label: dict[str, Any]) -> None:
    assert label["kept"] > 0 and label["tokens"] > 0 and 0 < label["precision"] <= 1
    claimed = [student for student in label["students"] if student["refused"] is None]
    assert claimed and all(s["low"] <= s["better"] <= s["high"] for s in claimed)
    assert all(abs(s["tokens"] / s["beside"] - 1) <= 0.01 for s in claimed)


def test_every_label_and_every_family_of_objectives_is_there() -> None:
    learnt = {student["objective"].partition(".")[0] for label in SURVEY["labels"] for student in label["students"]}
    assert tuple(label["label"] for label in SURVEY["labels"]) == ELICITED and learnt == conformance.FAMILIES.keys()
    [bandit] = {s["steps"] for one in SURVEY["labels"] for s in one["students"] if s["student"] == "bandit"}
    assert bandit == 50


KEPT = recipes.kept()


def test_the_page_of_methods_shows_the_results_of_now() -> None:
    assert recipes.PAGE.read_text("utf-8") == recipes.page(KEPT), "run `make recipes`"


def test_every_trial_has_figures_and_every_figure_is_of_a_proof() -> None:
    assert recipes.TRIALS.keys() <= KEPT.keys() <= recipes.TRIALS.keys() | recipes.GRAPHS.keys()


OBJECTIVES = methods.shipped("objective")
# What a row is about has these beside it, or is held against them.
PARTS = {
    "contrast.koleo", "feature.smooth", "routing.balance", "score.denoising", "score.following", "score.regression",
    "score.distribution", "score.sds", "score.rival",
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_has_a_row_beside_its_control(name: str) -> None:
    assert (f"`objective {name}`" in recipes.PAGE.read_text("utf-8")) != (name in PARTS)


@pytest.mark.parametrize("family", sorted({name.partition(".")[0] for name in OBJECTIVES}))
def test_a_family_of_objectives_has_a_recipe(family: str) -> None:
    used = "".join(file.read_text("utf-8") for file in (ROOT / "recipes").glob("*.yaml"))
    assert f"use: {family}." in used


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
