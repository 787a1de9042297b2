"""Select: every answer gets one row with a reason, whatever the parts, and plan refuses what cannot be meant."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.contracts import GAPS, RESPONSES, SCORES, SELECTIONS
from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance, Plan, StageParams
from pipeline.errors import Refused
from pipeline.kinds.selector import Budget, Candidates, Decision, decide
from pipeline.stages import gaps, generate, score, select
from pipeline.tables import parquet
from pipeline.tables.parquet import Scan

RANDOM = {"of": "responses/train", "use": "sampling.random", "seed": 5}
COVERAGE = {"of": "responses/train", "use": "mixture.coverage", "by": "agreement.score", "prefer": 0.625, "seed": 5}
EVERY = {
    "random": RANDOM,
    "coverage": COVERAGE | {"budget_tokens": 300, "where": "agreement.score >= 0.375"},
    "top": {**RANDOM, "use": "rank.top", "by": "agreement.score", "budget_rows": 10},
    "k_center": {**RANDOM, "use": "diversity.k_center", "vector": "embed.vector", "budget_rows": 10},
    "dsir": {
        **RANDOM,
        "use": "target.dsir",
        "text": "content || ' ' || answer",
        "target": "sample = 0",
        "budget_rows": 10,
    },
    "facility": {**RANDOM, "use": "submodular.facility_location", "vector": "embed.vector", "budget_tokens": 90},
    "similar": {
        **RANDOM,
        "use": "teachers.task_similarity",
        "vectors": {"teacher": "embed.vector", "base": "list_transform(embed.vector, lambda x: -x)"},
        "measure": "h_score",
    },
    "gaps": {**RANDOM, "use": "mixture.gaps", "gaps": "main", "budget_rows": 20},
}


def name_of(*words: object) -> str:
    return hashlib.md5(repr(words).encode()).hexdigest()


def answers(model: str, **changes: object) -> list[dict]:
    """40 prompts of two domains, 8 answers each, of which the first few say the same."""
    return [
        {
            "response_id": name_of(model, prompt, sample), "request_id": "r", "prompt_id": name_of(prompt),
            "messages": [{"role": "user", "content": str(prompt)}], "domain": "add" if prompt % 2 else "rev",
            "entry": model, "model_id": model, "sample": sample, "seed": 0, "content": f"#{sample}",
            "answer": "yes" if sample < 2 + prompt % 7 else str(sample), "finish_reason": "stop",
            "prompt_tokens": 4, "completion_tokens": 3 + sample, "attempts": 1,
        } | changes
        for prompt in range(40)
        for sample in range(8)
    ]  # fmt: skip


def write(data: Path, rows: dict[str, list[dict]], parts: int = 1, shuffle: int = 0) -> None:
    """The tables that a selection reads, with shares of agreement and an embedding for every answer."""
    for model, given in rows.items():
        order = np.random.default_rng(shuffle).permutation(len(given))
        parquet.write(RESPONSES, data / "responses/train" / model, parts, [RESPONSES.rows(given[i] for i in order)])
    every = [row for given in rows.values() for row in given]
    said: dict[tuple, int] = {}
    for row in every:
        key = (row["entry"], row["prompt_id"], row["answer"])
        said[key] = said.get(key, 0) + 1
    scores = [
        {"response_id": r["response_id"], "prompt_id": r["prompt_id"], "quantities": [],
         "score": said[r["entry"], r["prompt_id"], r["answer"]] / 8,
         "vector": [float(int(r["response_id"][i : i + 2], 16)) for i in (0, 2, 4)]}
        for r in every
    ]  # fmt: skip
    for name in ("agreement", "embed"):
        parquet.write(SCORES, data / "scores/responses/train" / name, parts, [SCORES.rows(scores)])
    parquet.write(
        GAPS, data / "gaps/main", 1,
        [GAPS.rows([{"domain": "add", "n": 20, "weight": 0.8}, {"domain": "rev", "n": 20, "weight": 0.2}])],
    )  # fmt: skip
    (data / "gates/responses/train").mkdir(parents=True)


def run(data: Path, given: dict, name: str = "main") -> list[dict]:
    params = select.Params.model_validate(given)
    inputs = {
        "responses": tuple(sorted(f"responses/train/{f.name}" for f in (data / "responses/train").iterdir())),
        "scores": ("scores/responses/train/agreement", "scores/responses/train/embed"),
        "gates": ("gates/responses/train",),
        "gaps": ("gaps/main",),
    }
    run_instance(Instance("select", name, params, inputs, params.output(name), "code"), RunSettings(), data, data)
    return Scan(SELECTIONS, (data / params.output(name),)).pylist()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write(root, {"teacher": answers("teacher"), "base": answers("base")})
    return root


def test_every_answer_has_one_row_and_a_reason(data: Path) -> None:
    rows = run(data, {**COVERAGE, "from": ["teacher"], "budget_tokens": 60, "where": "agreement.score >= 0.375"})
    every = [a["response_id"] for model in ("teacher", "base") for a in answers(model)]
    assert sorted(r["response_id"] for r in rows) == sorted(every)
    kept = [r for r in rows if r["kept"]]
    assert 50 < sum(r["tokens"] for r in kept) <= 60
    assert {r["reason"] for r in kept} == {"preferred"}
    assert {r["reason"] for r in rows if not r["kept"]} == {"other_entry", "where", "another_answer", "over_budget"}
    assert sum(r["reason"] == "other_entry" for r in rows) == 320
    assert all((r["weight"] == 1.0) == r["kept"] for r in rows)
    tokens = {d: sum(r["tokens"] for r in kept if r["domain"] == d) for d in ("add", "rev")}
    assert abs(tokens["add"] - tokens["rev"]) < 20


def test_a_budget_counts_what_it_is_told_to_count(data: Path) -> None:
    rows = run(data, {**RANDOM, "budget_tokens": 60, "tokens": "2 * round(8 * agreement.score)"})
    scores = Scan(SCORES, (data / "scores/responses/train/agreement",)).pylist()
    twice = {row["response_id"]: round(16 * row["score"]) for row in scores}
    assert all(row["tokens"] == twice[row["response_id"]] for row in rows)
    assert 50 < sum(row["tokens"] for row in rows if row["kept"]) <= 60
    with pytest.raises(Refused, match=r"640 answers have no count of tokens \(NULL\), for example .* Use budget_rows"):
        run(data, {**RANDOM, "budget_tokens": 60, "tokens": "NULL"})


def test_what_is_kept_is_ranked_by_a_number_then_by_id(data: Path) -> None:
    rows = run(data, {**RANDOM, "budget_rows": 30, "order": "-agreement.score"})
    score = {r["response_id"]: r["score"] for r in Scan(SCORES, (data / "scores/responses/train/agreement",)).pylist()}
    kept = sorted((r for r in rows if r["kept"]), key=lambda r: (-score[r["response_id"]], r["response_id"]))
    assert len({score[r["response_id"]] for r in kept}) < len(kept) == 30
    assert [r["rank"] for r in kept] == list(range(30))
    plain = run(data, {**RANDOM, "budget_rows": 30})
    assert all(r["rank"] is None for r in [*plain, *(r for r in rows if not r["kept"])])
    assert [{**r, "rank": None} for r in rows] == plain


def test_a_kept_answer_without_a_number_has_no_rank(data: Path) -> None:
    given = {**RANDOM, "order": "CASE WHEN agreement.score < 0.5 THEN agreement.score END"}
    with pytest.raises(Refused, match=r"main\.order: \d+ kept answers have no number, for example [0-9a-f]{32}"):
        run(data, given)
    kept = [r for r in run(data, {**given, "where": "agreement.score < 0.5"}) if r["kept"]]
    assert sorted(r["rank"] for r in kept) == list(range(len(kept)))


def test_random_without_a_budget_keeps_one_answer_of_every_prompt(data: Path) -> None:
    kept = [r for r in run(data, RANDOM) if r["kept"]]
    assert len(kept) == len({r["prompt_id"] for r in kept}) == 40
    assert sum(r["kept"] for r in run(data, {**RANDOM, "one_per_prompt": False})) == 640
    assert {r["reason"] for r in run(data, {**RANDOM, "where": "NULL"})} == {"where"}


@pytest.mark.parametrize("rule", EVERY)
def test_parts_and_order_of_the_rows_change_nothing(rule: str, data: Path, tmp_path: Path) -> None:
    write(tmp_path, {"teacher": answers("teacher"), "base": answers("base")}, parts=3, shuffle=4)
    one, three = run(data, EVERY[rule], "parts"), run(tmp_path, EVERY[rule], "parts")
    assert sum(r["kept"] for r in one) > 5
    assert one == sorted(three, key=lambda r: r["response_id"])
    parts = sorted((tmp_path / "selections/responses/train/parts").iterdir())
    assert [pq.read_metadata(p).num_rows > 0 for p in parts] == [True] * 3


def test_a_vector_is_the_same_from_its_table_and_through_sql(data: Path) -> None:
    through_sql = "list_transform(embed.vector, lambda x: x)"
    one, other = (run(data, {**EVERY["k_center"], "vector": text}) for text in ("embed.vector", through_sql))
    assert one == other and sum(row["kept"] for row in one) == 10
    where = {"where": "agreement.score > 0.5", "from": ["base"]}
    one, other = (run(data, {**EVERY["k_center"], **where, "vector": text}) for text in ("embed.vector", through_sql))
    assert one == other and {row["reason"] for row in one} >= {"farthest", "where", "other_entry"}


def test_another_name_or_seed_is_another_sample(data: Path) -> None:
    def kept(given: dict, name: str) -> set[str]:
        return {r["response_id"] for r in run(data, given, name) if r["kept"]}

    few = {**RANDOM, "budget_rows": 10}
    assert kept(few, "one") == kept(few, "one")
    assert kept(few, "one") != kept(few, "two")
    assert kept(few, "one") != kept({**few, "seed": 6}, "one")


def test_failed_and_cut_answers_are_not_kept_unless_cut_ones_are_allowed(tmp_path: Path) -> None:
    rows = answers("teacher")
    rows[0] |= {"finish_reason": "length"}
    rows[1] |= {"finish_reason": "error", "error": "refused", "content": None, "answer": None}
    rows[2] |= {"finish_reason": "content_filter", "completion_tokens": None}
    write(tmp_path, {"teacher": rows})
    everything = {**RANDOM, "one_per_prompt": False}
    reasons = {r["response_id"]: r["reason"] for r in run(tmp_path, everything)}
    assert [reasons[r["response_id"]] for r in rows[:4]] == ["truncated", "failed", "failed", "random"]
    reasons = {r["response_id"]: r["reason"] for r in run(tmp_path, {**everything, "allow_truncated": True})}
    assert [reasons[r["response_id"]] for r in rows[:4]] == ["random", "failed", "failed", "random"]


def test_a_budget_of_tokens_needs_counts(tmp_path: Path) -> None:
    write(tmp_path, {"teacher": answers("teacher", completion_tokens=None)})
    with pytest.raises(Refused, match=r"320 answers have no count of tokens.*budget_rows"):
        run(tmp_path, {**RANDOM, "budget_tokens": 100})
    assert sum(r["kept"] for r in run(tmp_path, {**RANDOM, "budget_rows": 10})) == 10


@pytest.mark.parametrize(
    ("budget", "says"), [(Budget(rows=1, one_per_prompt=False), "budget"), (Budget(), "one prompt")]
)
def test_a_selector_that_breaks_its_budget_is_stopped(budget: Budget, says: str) -> None:
    def greedy(candidates: Candidates, budget: Budget, seed: int) -> Decision:
        return decide(candidates, budget, range(len(candidates)), "mine")

    same = np.array(["p", "p"], object)
    rows = Candidates(np.array(["a", "b"], object), same, same, np.array([1, 1]), {})
    with pytest.raises(ValueError, match=says):
        select.held_to(budget, greedy(rows, budget, 0), rows)


def plan_with(params: dict) -> list[str]:
    plan = Plan(RunSettings())

    def add(stage: str, name: str, made: StageParams) -> None:
        plan.instances[f"{stage}@{name}"] = Instance(stage, name, made, {}, made.output(name), "code")

    sampling = {"k": 1, "temperature": 1.0, "seed": 0}
    add("generate", "teacher", generate.Params.model_validate({"pool": "train", "model": "large", **sampling}))
    add("score", "agreement", score.Params.model_validate({"of": "responses/train", "use": "consistency.agreement"}))
    add("gaps", "main", gaps.Params.model_validate(
        {"of": "responses/train", "teacher": "teacher", "student": "teacher", "solved": "true"}))  # fmt: skip
    return select.Params.model_validate({"seed": 0, "of": "responses/train", **params}).check(plan)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (
            {"use": "sampling.random", "from": ["large"]},
            "from: no entry 'large' of generate answers responses/train; there are teacher",
        ),
        ({"use": "sampling.random", "where": "agreemnt.score > 0"}, "where: 'agreemnt.score > 0'"),
        ({"use": "sampling.random", "where": "agreement.score"}, "must be a condition"),
        ({"use": "rank.top", "by": "nll.score"}, "by: 'nll.score'"),
        ({"use": "rank.top", "by": "domain"}, "must be a number"),
        ({"use": "diversity.k_center", "vector": "agreement.score"}, "must be a vector"),
        ({"use": "target.dsir", "text": "sample", "target": "true"}, "text: 'sample' must be a text; it is BIGINT"),
        ({"use": "mixture.gaps", "gaps": "mane"}, "gaps: no gaps entry is called 'mane'; there are main"),
    ],
)
def test_plan_refuses_what_cannot_be_meant(params: dict, says: str) -> None:
    [fault] = plan_with(params)
    assert says in fault


def test_plan_accepts_the_shipped_rules() -> None:
    assert plan_with({"use": "sampling.random", "from": ["teacher"], "budget_tokens": 150000}) == []
    where = "agreement.score >= 0.375 AND finish_reason = 'stop'"
    assert plan_with({"use": "mixture.coverage", "by": "agreement.score", "prefer": 0.625, "where": where}) == []


def test_a_budget_of_operations_counts_the_prompts_and_the_students_parameters(data: Path) -> None:
    """6 operations a parameter and token: 90 tokens of a student of a thousand parameters."""
    given = {**RANDOM, "from": ["teacher"], "budget_flops": 6 * 1000 * 90 + 5999, "parameters": 1000}
    kept = [row for row in run(data, given) if row["kept"]]
    read = sum(row["tokens"] + 4 for row in kept)
    assert 90 - 14 < read <= 90
    assert select.Params.model_validate(given).budget() == {"flops": 6 * 1000 * 90 + 5999}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budget_flops": 1e6}, "budget_flops and parameters"),
        ({"parameters": 10, "budget_rows": 3}, "budget_flops and parameters"),
        ({"budget_rows": 3, "budget_tokens": 3}, "one budget, not budget_rows and budget_tokens"),
        ({"budget_flops": 1e6, "parameters": 10, "budget_rows": 3}, "one budget, not budget_rows and budget_flops"),
    ],
)
def test_budgets_that_cannot_be_meant(given: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        select.Params.model_validate({**RANDOM, **given})


def test_how_different_the_kept_answers_are_is_told_beside_chance(data: Path) -> None:
    run(data, EVERY["k_center"] | {"from": ["teacher"]}, "told")
    record = json.loads((data / ".runs/select/told.json").read_text("utf-8"))
    said = record["notes"]["vendi"]["embed.vector"]
    assert 1 <= said["by chance"] < said["kept"] <= 3
