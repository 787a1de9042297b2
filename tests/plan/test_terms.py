"""A model whose terms forbid it is trained on by nobody: the plan says so before anything runs."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pipeline.plan.faults import PlanError
from pipeline.plan.resolve import resolve

LIVE = {
    "of": "examples/coverage", "student": "base", "teacher": "other", "epochs": 1,
    "objectives": [{"use": "divergence.forward"}],
}  # fmt: skip


def forbidden(given: dict[str, Any], model: str, terms: str) -> set[str]:
    """The entries that are refused once a model has these terms."""
    changed = copy.deepcopy(given)
    changed["acquire"]["other"] = {"use": "local.embedded", "name": "teacher"}
    changed["distill"] = {"live": LIVE}
    changed["acquire"][model]["terms"] = terms
    try:
        resolve(changed)
    except PlanError as error:
        assert all(f"acquire.{model} says `terms: no-training`" in fault for fault in error.faults)
        return {fault.split(":")[0] for fault in error.faults}
    return set()


@pytest.mark.parametrize(
    ("model", "terms", "stopped"),
    [
        ("teacher", "no-training", {"pack.random", "pack.coverage", "train.random_sft", "train.coverage_sft",
                                    "train.kd", "distill.live"}),
        ("teacher", "CC-BY 4.0", set()),
        # Nobody selects the answers of the base.
        ("base", "no-training", set()),
        ("other", "no-training", {"distill.live"}),
    ],
)  # fmt: skip
def test_whose_answers_may_not_be_trained_on(given: dict[str, Any], model: str, terms: str, stopped: set[str]) -> None:
    assert forbidden(given, model, terms) == stopped


def test_what_is_built_of_a_model_or_made_of_its_signals_has_its_terms(given: dict[str, Any]) -> None:
    given["acquire"]["other"] = {"use": "local.embedded", "name": "teacher", "terms": "no-training"}
    given["build"] = {"grown": {"base": "teacher", "donor": "other", "use": "tokens.omp"}}
    given["probe"]["grown"] = {"of": "coverage", "model": "grown", "top_k": 8}
    given["transform"] = {
        "both": {"of": "coverage", "from": "teacher", "with": "signals/coverage/grown", "use": "merge.mean"}
    }
    given["quality"]["both_signals"] = {"of": "signals/coverage/both", "suite": "signals"}
    given["train"]["kd"]["of"] = "signals/coverage/both"
    with pytest.raises(PlanError) as error:
        resolve(given)
    assert [fault.split(":")[0] for fault in error.value.faults if "no-training" in fault] == ["train.kd"]
