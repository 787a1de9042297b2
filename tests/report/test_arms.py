"""Which selection is chance for which other."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from tests.stages import report_data
from tests.stages.test_report import compared

GOOD = "agreement.score >= 0.5"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"coverage": GOOD, "random": "true"}, {("control", "coverage_sft", "random_sft")}),
        ({"coverage": GOOD, "random": GOOD}, {("control", "coverage_sft", "random_sft")}),
        # Chance among rows that a rule chose is no chance for what was chosen by another, or by none.
        ({"coverage": "true", "random": GOOD}, set()),
        ({"coverage": "completion_tokens < 9", "random": GOOD}, set()),
    ],
    ids=str,
)
def test_a_control_is_chosen_of_all_rows_or_of_the_same(
    tmp_path: Path, rules: dict[str, str], expected: set[tuple[str, str, str]]
) -> None:
    params = copy.deepcopy(report_data.PARAMS)
    for name, rule in rules.items():
        params["select"][name]["where"] = rule
    found = {c for c in compared(tmp_path, params) if c[0] == "control" and c[1] == "coverage_sft"}
    assert found == expected


def test_rows_that_a_rule_left_are_held_against_chance(tmp_path: Path) -> None:
    """To draw among the good rows alone is a selection too, and the commonest."""
    params = copy.deepcopy(report_data.PARAMS)
    params["select"]["coverage"] = {**params["select"]["random"], "where": GOOD}
    assert ("control", "coverage_sft", "random_sft") in compared(tmp_path, params)
    assert ("control", "random_sft", "coverage_sft") not in compared(tmp_path, params)
