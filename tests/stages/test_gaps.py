"""Gaps: the columns are what they are defined to be, on answers small enough to count by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.contracts import GAPS, RESPONSES, SCORES
from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance
from pipeline.errors import Refused
from pipeline.stages import gaps
from pipeline.tables import parquet
from pipeline.tables.parquet import Scan

PARAMS = {"of": "responses/train", "teacher": "big", "student": "small", "solved": "verified.score = 1"}
NLL = {"teacher_nll": "big_nll", "student_nll": "small_nll"}

# model, prompt, domain, solved, tokens, teacher's and student's (nll_sum, tokens)
ANSWERS = [
    ("big", "00000001", "add", 1.0, 10, (1.0, 10.0), (2.0, 10.0)),
    ("big", "00000001", "add", 1.0, 20, (3.0, 20.0), (4.0, 20.0)),
    ("big", "00000002", "add", 0.0, 30, (2.0, 10.0), (2.0, 10.0)),
    ("big", "00000003", "add", 1.0, 99, (9.0, 1.0), (9.0, 1.0)),  # the student did not answer this one
    ("small", "00000001", "add", 1.0, 5, None, None),
    ("small", "00000002", "add", 0.0, 5, None, None),
    ("small", "00000002", "add", None, 5, None, None),
    ("big", "00000004", "rev", 1.0, 8, (1.0, 8.0), (8.0, 8.0)),
    ("small", "00000004", "rev", 0.0, 8, None, None),
    ("big", "00000005", "only_teacher", 1.0, 8, (1.0, 8.0), (8.0, 8.0)),
]


def write(data: Path, parts: int = 1) -> None:
    responses, scores = [], {"verified": [], "big_nll": [], "small_nll": []}
    for i, (model, prompt, domain, solved, tokens, *nlls) in enumerate(ANSWERS):
        key = {"response_id": f"{i:04d}", "prompt_id": prompt}
        responses.append({
            "response_id": f"{i:04d}", "request_id": "r", "prompt_id": prompt, "messages": [], "domain": domain,
            "entry": model, "model_id": model, "sample": 0, "seed": 0, "content": "x", "finish_reason": "stop",
            "completion_tokens": tokens,
            "attempts": 1,
        })  # fmt: skip
        scores["verified"].append(key | {"score": solved, "quantities": []})
        for name, nll in zip(("big_nll", "small_nll"), nlls, strict=True):
            if nll:
                quantities = [("nll_sum", nll[0]), ("tokens", nll[1])]
                scores[name].append(key | {"score": nll[0] / nll[1], "quantities": quantities})
    for model in ("big", "small"):
        rows = [r for r in responses if r["entry"] == model]
        parquet.write(RESPONSES, data / "responses/train" / model, parts, [RESPONSES.rows(rows)])
    for name, rows in scores.items():
        parquet.write(SCORES, data / "scores/responses/train" / name, parts, [SCORES.rows(rows)])


def run(data: Path, **changes: object) -> dict[str, dict]:
    params = gaps.Params.model_validate({**PARAMS, **changes})
    inputs = {
        "responses": ("responses/train/big", "responses/train/small"),
        "scores": tuple(f"scores/responses/train/{s}" for s in ("big_nll", "small_nll", "verified")),
    }
    run_instance(Instance("gaps", "main", params, inputs, "gaps/main", "code"), RunSettings(), data, data)
    return {row["domain"]: row for row in Scan(GAPS, (data / "gaps/main",)).pylist()}


def test_columns_are_counted_over_the_prompts_that_both_answered(tmp_path: Path) -> None:
    write(tmp_path)
    rows = run(tmp_path, **NLL)
    assert set(rows) == {"add", "rev"}
    add = rows["add"]
    assert add["n"] == 2
    assert add["teacher_pass"] == 2 / 3
    assert add["student_pass"] == 1 / 2  # the answer without a verdict does not count
    assert add["cost_per_solved"] == 60  # 60 tokens were spent for the one prompt that was solved
    assert add["teacher_ppl"] == math.exp(6 / 40)
    assert add["student_ppl"] == math.exp(8 / 40)
    assert add["ratio"] == add["student_ppl"] / add["teacher_ppl"]
    pull = np.exp([add["ratio"], rows["rev"]["ratio"]])
    expected = 0.5 * pull / pull.sum() + 0.25
    assert [add["weight"], rows["rev"]["weight"]] == pytest.approx(expected, abs=1e-12)


def test_without_perplexities_the_pass_rates_decide(tmp_path: Path) -> None:
    write(tmp_path)
    rows = run(tmp_path, alpha=0.8)
    assert rows["add"]["ratio"] is None
    behind = {"add": 2 / 3 - 1 / 2, "rev": 1.0}
    for domain, gap in behind.items():
        assert rows[domain]["weight"] == pytest.approx(0.8 * gap / sum(behind.values()) + 0.1)
    even = run(tmp_path, solved="true")
    assert {row["weight"] for row in even.values()} == {0.5}


def test_weights_of_the_last_turn_are_carried_on(tmp_path: Path) -> None:
    write(tmp_path)
    rows = run(tmp_path, previous={"add": 0.9, "rev": 0.1}, **NLL)
    pull = np.array([0.9, 0.1]) * np.exp([rows["add"]["ratio"], rows["rev"]["ratio"]])
    assert rows["add"]["weight"] == pytest.approx(0.5 * pull[0] / pull.sum() + 0.25, abs=1e-12)


def test_the_gap_has_an_interval_over_prompts(tmp_path: Path) -> None:
    write(tmp_path)
    rows = run(tmp_path)
    add, rev = rows["add"], rows["rev"]
    assert add["gap"] == add["teacher_pass"] - add["student_pass"]
    # Prompt 1: the teacher 2 of 2, the student 1 of 1; prompt 2: 0 of 1 and 0 of 1.
    errors = [(2 - 2 * 2 / 3) / 3 - (1 - 1 / 2) / 2, (0 - 1 * 2 / 3) / 3 - (0 - 1 / 2) / 2]
    width = 1.959963984540054 * math.sqrt(sum(e * e for e in errors) * 2)
    assert [add["gap_low"], add["gap_high"]] == pytest.approx([add["gap"] - width, add["gap"] + width], abs=1e-12)
    assert (rev["gap"], rev["gap_low"], rev["gap_high"]) == (1.0, None, None)  # one prompt tells nothing of others
    unknown = run(tmp_path, solved="NULL::BOOLEAN")["add"]
    assert (unknown["gap"], unknown["gap_low"], unknown["teacher_pass"]) == (None, None, None)


def test_hard_negatives_are_wrong_and_sure(tmp_path: Path) -> None:
    write(tmp_path)
    assert run(tmp_path)["add"]["hard_negatives"] is None
    found = run(tmp_path, sure="completion_tokens = 5")
    assert (found["add"]["hard_negatives"], found["rev"]["hard_negatives"]) == (1, 0)
    assert run(tmp_path, sure="NULL::BOOLEAN")["add"]["hard_negatives"] == 0


@pytest.mark.parametrize(
    ("use", "weights"),
    [
        ({"use": "weights.size"}, [2 / 3, 1 / 3]),
        ({"use": "weights.size", "temperature": 2.0}, [2**0.5 / (2**0.5 + 1), 1 / (2**0.5 + 1)]),
        ({"use": "weights.band"}, [1.0, 0.0]),
        ({"use": "weights.band", "low": 0.9, "high": 1.0}, [0.5, 0.5]),
        ({"use": "weights.behind", "alpha": 1.0}, [1 / 7, 6 / 7]),
        ({"use": "bandit.linucb"}, [1.0, 0.0]),
        ({"use": "bandit.linucb", "history": [{"teacher": "big", "domain": "rev", "rows": 1, "gain": 2, "cost": 0}]},
         [0.0, 1.0]),
    ],
)  # fmt: skip
def test_a_mixture_gives_the_weights(use: dict, weights: list[float], tmp_path: Path) -> None:
    write(tmp_path)
    rows = run(tmp_path, **use)
    assert [rows["add"]["weight"], rows["rev"]["weight"]] == pytest.approx(weights, abs=1e-12)


def test_parts_change_nothing(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "three", parts=3)
    assert run(tmp_path / "one", **NLL) == run(tmp_path / "three", **NLL)


def test_models_without_a_common_prompt_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(Refused, match="answered by both"):
        run(tmp_path, student="tiny")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"teacher_nll": "big_nll"}, "takes both teacher_nll and student_nll, or neither"),
        ({"use": "weights.ddk"}, "weights.ddk needs perplexities; name the readings teacher_nll and student_nll"),
        ({"previous": {"add": 1.0}}, "weights.behind has no parameter 'previous'"),
        ({"alpha": 2.0}, "less than or equal to 1"),
        ({"use": "bandit.linucb", "history": [{"domain": "add"}]}, "Field required"),
        ({"use": "bandit.linucb", "history": [{"row": 3}]}, r"(?s)history\.0\.row\s+Extra inputs are not permitted"),
        ({"use": "weights.dkd"}, "weights.ddk"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(given: dict, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        gaps.Params.model_validate({**PARAMS, **given})
