"""Scores whose values can be worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from pipeline.contracts import RESPONSES, SCORES
from pipeline.core.driver import run_instance
from pipeline.core.methods import find
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance, Plan
from pipeline.kinds.scorer import quantities_of
from pipeline.kinds.verifier import answer_of
from pipeline.laws import scorer as laws
from pipeline.laws.scorer import responses
from pipeline.scorers.rule import kept_by
from pipeline.stages.score import Params
from pipeline.stages.score import score as stage
from pipeline.tables import parquet, sorting
from pipeline.tables.parquet import Scan
from tests.scorers.scored import score, votes


def test_agreement_counts_equal_answers() -> None:
    scores, quantities = score("consistency.agreement", votes("7", "8", "7", None, "7.0"))
    assert scores == [0.4, 0.2, 0.4, None, 0.2]
    assert [p["majority"] for p in quantities] == [1, 0, 1, 0, 0]
    assert {p["distinct"] for p in quantities} == {3}
    assert {p["margin"] for p in quantities} == {0.2}
    share = [2 / 5, 1 / 5, 1 / 5, 1 / 5]
    assert quantities[0]["entropy"] == pytest.approx(-sum(p * math.log(p) for p in share), abs=1e-12)


def test_agreement_on_numbers_and_on_words() -> None:
    assert score("consistency.agreement", votes("7", "7.0", "$7"), normalise="number")[0] == [1, 1, 1]
    assert score("consistency.agreement", votes("Yes.", "yes", "no"), normalise="text")[0] == [2 / 3, 2 / 3, 1 / 3]


def test_a_tie_goes_to_the_first_in_alphabetic_order() -> None:
    _, quantities = score("consistency.margin", votes("b", "a", "b", "a"))
    assert [p["majority"] for p in quantities] == [0, 1, 0, 1]
    assert quantities[0]["margin"] == 0


def test_a_unanimous_vote_has_no_entropy() -> None:
    scores, quantities = score("consistency.entropy", votes("a", "a"))
    assert scores == [0, 0]
    assert math.copysign(1, scores[0] or 0.0) == 1
    assert quantities[0]["margin"] == 1


def test_unread_answers_are_no_majority() -> None:
    scores, quantities = score("consistency.agreement", votes(None, None, "a"))
    assert scores == [None, None, 1 / 3]
    assert [p["majority"] for p in quantities] == [0, 0, 1]
    assert quantities[0]["margin"] == pytest.approx(1 / 3)


def test_correct_is_null_only_where_it_does_not_apply() -> None:
    rows = {
        "verifier": ["numeric.last", "numeric.last", "numeric.last", None, "numeric.last", "numeric.last"],
        "reference": ["7", "7", "7", "7", None, "7"],
        "answer": ["7.0", "8", None, "7", "7", None],
        "error": pa.array([None, None, None, None, None, "no route"], pa.string()),
    }
    assert score("verifier.correct", rows)[0] == [1, 0, 0, None, None, None]


def test_format_wants_an_answer_and_an_end() -> None:
    rows = {
        "content": ["a b c a b c", "x", "x", None],
        "answer": pa.array(["c", None, "x", None], pa.string()),
        "finish_reason": ["stop", "stop", "length", "error"],
        "error": pa.array([None, None, None, "no route"], pa.string()),
    }
    scores, quantities = score("heuristic.format", rows)
    assert scores == [1, 0, 0, None]
    assert quantities[0]["repeated"] == 0.25
    assert [p["truncated"] for p in quantities] == [0, 0, 1, 0]


def test_only_responses_are_scored() -> None:
    with pytest.raises(ValueError, match="responses/"):
        Params.model_validate({"of": "prompts/train", "use": "consistency.agreement"})


def test_every_answer_of_every_folder_gets_its_own_score_and_nothing_yielded_is_held(tmp_path: Path) -> None:
    rows = laws.responses()
    for entry in ("teacher", "base"):
        (tmp_path / entry).mkdir()
        parquet.write_part(RESPONSES, tmp_path / entry, 0, rows.filter(pc.equal(rows["entry"], entry)).to_batches())
    params = Params.model_validate({"of": "responses/train", "use": "consistency.agreement"})
    [case, *_] = laws.cases(params.use.method)
    before = pa.total_allocated_bytes()
    batches = stage.function(params, Scan(RESPONSES, (tmp_path / "teacher", tmp_path / "base")), tmp_path, tmp_path)
    batch = next(batches)
    assert {row["response_id"]: row for row in batch.to_pylist()} == case.scores(rows)
    size = batch.nbytes
    del batch
    assert pa.total_allocated_bytes() < before + size / 2
    assert list(batches) == []


@pytest.mark.parametrize("many", [1, 7, 40, 120])
def test_a_large_part_is_scored_in_pieces_of_whole_prompts(
    many: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = laws.responses()
    parquet.write_part(RESPONSES, tmp_path, 0, rows.to_batches())
    monkeypatch.setattr(parquet, "MANY", many)
    monkeypatch.setattr(sorting, "RUN_ROWS", 16)
    params = Params.model_validate({"of": "responses/train", "use": "consistency.agreement"})
    [case, *_] = laws.cases(params.use.method)
    batches = list(stage.function(params, Scan(RESPONSES, (tmp_path,)), tmp_path, tmp_path))
    assert {row["response_id"]: row for batch in batches for row in batch.to_pylist()} == case.scores(rows)
    # Ten answers to each of twelve prompts.
    sizes = [len(batch) for batch in batches]
    assert all(size % 10 == 0 for size in sizes) and all(size >= many for size in sizes[:-1])
    assert (len(sizes) == 1) == (many == len(rows))
    assert [file.name for file in tmp_path.iterdir()] == ["part-00000.parquet"]


def test_quantities_may_be_those_of_groups_and_are_no_nan() -> None:
    found = quantities_of(np.array([1, 0, 1]), votes=np.array([2, 3]))
    assert found.to_pylist() == [[("votes", 3)], [("votes", 2)], [("votes", 3)]]
    with pytest.raises(ValueError, match="votes has NaN"):
        quantities_of(votes=np.array([np.nan]), samples=np.array([1.0]))


ONE_VOTE = [
    ("symbolic.math", [r"\boxed{1200}", r"\boxed{1{,}200}"]),
    ("symbolic.math", [r"\boxed{\{1,2\}}", r"\boxed{\{2,1\}}"]),
    ("symbolic.math", [r"\boxed{\frac12}", r"\boxed{x=\frac12}"]),
    ("symbolic.math", [r"\boxed{\frac12}", "0.5", "1/2", r"$\dfrac{2}{4}$", r"\boxed{50\%}"]),
    ("symbolic.math", [r"\boxed{x+1}", r"\boxed{1+x}"]),
    ("symbolic.math", [r"\boxed{\frac{\sqrt{2}}{2}}", r"\boxed{\frac{1}{\sqrt{2}}}"]),
    ("symbolic.math", [r"\boxed{x \ge 4}", r"\boxed{4 \le x}", r"\boxed{[4,\infty)}"]),
    ("symbolic.math", [r"\boxed{\text{Even}}", r"\boxed{\text{even}}"]),
    ("symbolic.math", [r"\boxed{12_8}", r"\boxed{12_{8}}"]),
    ("numeric.last", ["0.5", "50%", "1/2", r"\frac{1}{2}"]),
    ("numeric.last", ["1,200", "1200.0", "1.2 \u00d7 10^3"]),
    ("text.choice", ["The answer is C.", "(c)", r"\boxed{C}"]),
    ("text.marked", ["#### 2,125", "#### $2125", "x#2125"]),
    ("text.line", ["Caf\u00e9", "Cafe\u0301.", "café"]),
]


@pytest.mark.parametrize(("verifier", "texts"), ONE_VOTE)
def test_what_a_verifier_holds_for_equal_is_one_vote(verifier: str, texts: list[str]) -> None:
    for order in (texts, texts[::-1]):
        rows = votes(*(answer_of(verifier, text) for text in order))
        assert score("consistency.agreement", {**rows, "verifier": [verifier] * len(order)})[0] == [1.0] * len(order)


def test_siblings_alone_are_compared_and_by_their_own_verifier() -> None:
    rows = votes(*["0.5", "50%"] * 3)
    rows["prompt_id"] = ["p", "p", "q", "q", "r", "r"]
    rows["verifier"] = ["numeric.last", "numeric.last", "text.exact", "text.exact", None, None]
    scores, quantities = score("consistency.agreement", rows)
    assert scores == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5]
    assert [q["votes"] for q in quantities] == [2, 2, 1, 1, 1, 1]
    assert [q["distinct"] for q in quantities] == [1, 1, 2, 2, 2, 2]


def test_typographic_forms_are_one_vote() -> None:
    forms = votes("Caf\u00e9", "Cafe\u0301.", "CAFÉ\u3002")
    assert score("consistency.agreement", forms, normalise="text")[0] == [1, 1, 1]
    assert score("consistency.agreement", votes("9{,}500", "9500", "It is 9 500."), normalise="number")[0] == [1, 1, 1]


def test_a_rule_scores_answers() -> None:
    rule = find("rule", "form.length").factory(least=2)
    found = kept_by(rule)(pa.table({"content": ["one two", "one", None]}))
    assert found["score"].to_pylist() == [1, 0, None]
    assert [dict(row) for row in found["quantities"].to_pylist()][:2] == [
        {"kept": 1.0, "value": 2.0},
        {"kept": 0.0, "value": 1.0},
    ]
    assert found["detail"].to_pylist() == [None, "1 words", None]


def test_the_stage_asks_a_rule_about_a_table(tmp_path: Path) -> None:
    rows = [{**row, "prompt_id": f"{int(row['prompt_id'][1:]):032x}"} for row in responses().to_pylist()]
    parquet.write(RESPONSES, tmp_path / "responses/train/teacher", 2, [RESPONSES.rows(rows)])
    params = Params.model_validate({"of": "responses/train", "rule": {"use": "form.length", "most": 9}})
    instance = Instance("score", "brief", params, {"responses": ("responses/train/teacher",)}, "scores/brief", "")
    run_instance(instance, RunSettings(), tmp_path, tmp_path)
    scores = Scan(SCORES, (tmp_path / "scores/brief",)).pylist()
    assert len(scores) == len(rows) and {row["score"] for row in scores} == {1.0, 0.0, None}


def test_a_scorer_that_learns_does_so_from_all_parts(tmp_path: Path) -> None:
    rows = [{**row, "prompt_id": f"{int(row['prompt_id'][1:]):032x}"} for row in responses().to_pylist()]
    params = Params.model_validate({"of": "responses/train", "use": "critic.linear"})
    found = []
    for parts in (1, 3):
        folder = tmp_path / str(parts)
        parquet.write(RESPONSES, folder / "responses/train/all", parts, [RESPONSES.rows(rows)])
        instance = Instance("score", "critic", params, {"responses": ("responses/train/all",)}, "scores/critic", "")
        run_instance(instance, RunSettings(executor="inline"), folder, folder)
        found.append({row["response_id"]: row for row in Scan(SCORES, (folder / "scores/critic",)).pylist()})
    assert found[0] == found[1] and len({row["score"] for row in found[0].values()}) > 10


def test_an_entry_names_a_scorer_or_a_rule_that_judges_a_text_by_itself() -> None:
    for given in ({}, {"use": "heuristic.format", "rule": "form.length"}):
        with pytest.raises(ValidationError, match="write either `use:`, a scorer, or `rule:`"):
            Params.model_validate({"of": "responses/train", **given})
    params = Params.model_validate({"of": "responses/train", "rule": "duplicates.exact"})
    assert params.check(Plan(RunSettings())) == [
        "rule: duplicates.exact holds texts against each other or a benchmark, which is for `curate`"
    ]
