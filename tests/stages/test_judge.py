"""Judge: from answers to questions about them, and from what was said to their scores."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.contracts import DROPS, PROMPTS, RESPONSES, SCORES
from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance, Plan
from pipeline.errors import Refused
from pipeline.kinds.verifier import answer_of, metric_of
from pipeline.plan.faults import PlanError
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.stages import derive, judge
from pipeline.tables import ids, parquet, rules
from pipeline.tables.parquet import Scan

# Entry, prompt, content; an answer of None failed, and one that ends with `...` was cut off.
ANSWERS = [
    ("teacher", "6 * 7", "42"), ("teacher", "6 * 7", "42"), ("teacher", "6 * 7", "It is 41"), ("base", "6 * 7", "42"),
    ("base", "6 * 7", "It is 4..."), ("base", "6 * 7", None),
    ("teacher", "1 + 1", "2"), ("base", "1 + 1", "2"),
    ("teacher", "2 + 2", "5"), ("base", "2 + 2", "22"),
]  # fmt: skip
RIGHT = {"6 * 7": "42", "1 + 1": "2", "2 + 2": "4"}
POINTS = {"use": "verdicts.points"}


def prompt(text: str, **columns: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {
        "prompt_id": ids.prompt_id(messages), "messages": messages, "domain": "d", "source": "s", "group": text,
        "verifier": "numeric.last", "reference": RIGHT.get(text), **columns,
    }  # fmt: skip


def response(asked: dict[str, Any], entry: str, sample: int, content: str | None) -> dict[str, Any]:
    own = {key: asked[key] for key in ("prompt_id", "messages", "domain", "verifier", "reference")}
    finish = "error" if content is None else "length" if content.endswith("...") else "stop"
    return {
        **own, "response_id": ids.digest(entry, asked["prompt_id"], sample), "request_id": "r", "entry": entry,
        "model_id": entry, "sample": sample, "seed": sample, "content": content, "finish_reason": finish,
        "answer": answer_of(asked["verifier"], content), "attempts": 1, "error": None if content else "no route",
    }  # fmt: skip


def write(data: Path, pool: str, rows: list[dict[str, Any]]) -> None:
    for entry in sorted({row["entry"] for row in rows}):
        own = [row for row in rows if row["entry"] == entry]
        parquet.write(RESPONSES, data / "responses" / pool / entry, 2, [RESPONSES.rows(own)])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A pool with answers of two entries."""
    prompts = {text: prompt(text) for text in RIGHT}
    parquet.write(PROMPTS, tmp_path / "prompts/train/tasks", 2, [PROMPTS.rows(prompts.values())])
    parquet.write(PROMPTS, tmp_path / "prompts/bench/tasks", 2, [])
    parquet.write(DROPS, tmp_path / "drops/train", 2, [])
    write(tmp_path, "train", [response(prompts[text], e, i, said) for i, (e, text, said) in enumerate(ANSWERS)])
    return tmp_path


def ask(data: Path, use: str, **params: Any) -> list[dict[str, Any]]:
    """The questions that an entry of derive asks about the answers, by the real stage."""
    given = {"of": "train", "pool": "judging", "against": "bench", "use": use, "seed": 1, **params}
    inputs = {
        "prompts": ("prompts/train/tasks",), "drops": ("drops/train",), "against": ("prompts/bench/tasks",),
        "responses": ("responses/train/base", "responses/train/teacher"),
    }  # fmt: skip
    made = derive.Params.model_validate(given)
    run_instance(Instance("derive", "ask", made, inputs, "prompts/judging/ask", ""), RunSettings(), data, data)
    return Scan(PROMPTS, (data / "prompts/judging/ask",)).pylist()


def reply(data: Path, says: Callable[[list[str]], list[str | None]], entry: str = "critic") -> None:
    """A model's replies to every question, from the contents that it shows."""
    contents = {row["response_id"]: row["content"] for row in Scan(RESPONSES, tables(data, "train")).pylist()}
    rows = [
        response(question, entry, i, text)
        for question in Scan(PROMPTS, (data / "prompts/judging/ask",)).pylist()
        for i, text in enumerate(says([contents[parent] for parent in question["parent_ids"]]))
    ]
    write(data, "judging", rows)


def tables(data: Path, pool: str) -> tuple[Path, ...]:
    return tuple(sorted((data / "responses" / pool).iterdir()))


def run(
    data: Path, name: str = "quality", **params: Any
) -> tuple[dict[tuple[str, str, str | None], Any], dict[str, Any]]:
    """(entry, prompt, content) -> score and quantities, and the notes of the run."""
    made = judge.Params.model_validate({"of": "responses/train", "by": "judging", **params})
    inputs = {
        "responses": ("responses/train/base", "responses/train/teacher"),
        "questions": ("prompts/judging/ask",),
        "replies": tuple(f"responses/judging/{folder.name}" for folder in tables(data, "judging")),
    }
    output = made.output(name)
    record = run_instance(Instance("judge", name, made, inputs, output, ""), RunSettings(), data, data)
    scan = Scan(SCORES, (data / output,))
    assert scan.parts == 2
    scores = {row["response_id"]: (row["score"], dict(row["quantities"])) for row in scan.pylist()}
    rows = Scan(RESPONSES, tables(data, "train")).pylist()
    assert set(scores) == {row["response_id"] for row in rows}
    named = {(r["entry"], r["messages"][0]["content"], r["content"]): scores[r["response_id"]] for r in rows}
    return named, record["notes"]


def test_points_hold_for_all_that_say_the_same_and_are_held_against_the_verifier(data: Path) -> None:
    questions = ask(data, "questions.points")
    assert len(questions) == 5 and {q["elicitation"] for q in questions} == {"feedback"}
    assert all(len(q["parent_ids"]) == 1 for q in questions)
    marks = {"42": ["#### 5", "#### 4"], "It is 41": ["#### 2", None], "2": ["#### 5"], "5": ["#### 4"]}
    reply(data, lambda shown: list(marks.get(shown[0], ["I cannot judge that."])))
    scores, notes = run(data, **POINTS)
    twice = {"asked": 2, "unread": 0}
    assert scores["teacher", "6 * 7", "42"] == scores["base", "6 * 7", "42"] == (4.5, twice | {"n": 2, "sum": 9})
    assert scores["teacher", "6 * 7", "It is 41"] == (2.0, twice | {"n": 1, "sum": 2, "unread": 1})
    assert scores["base", "2 + 2", "22"] == (None, {"asked": 1, "n": 0, "sum": 0, "unread": 1})
    # What was cut off or failed was never asked about.
    assert scores["base", "6 * 7", "It is 4..."] == scores["base", "6 * 7", None] == (None, {})
    assert notes["unread"] == 2 / 7 and "inconsistent" not in notes
    # Above the middle of the scale are three times 42, twice 2, and a 5 that is wrong.
    kappa = (7 * 6 - 32) / (7 * 7 - 32)
    counted = {"n": 7, "good": 6, "right": 5}
    assert notes["verifier"] == {**counted, "precision": 5 / 6, "recall": 1.0, "kappa": kappa}


def test_pairs_are_won_where_both_orders_agree(data: Path) -> None:
    questions = ask(data, "questions.pairs")
    # Contents that are one are no pair: two pairs in two orders are left.
    assert len(questions) == 4
    shown = {tuple(q["parent_ids"]) for q in questions}
    assert shown == {pair[::-1] for pair in shown}
    sides = {"42": "A", "It is 41": "B"}
    reply(data, lambda s: [f"The better answer is: {sides.get(s[0], 'A')}"])
    scores, notes = run(data, use="verdicts.wins")
    nothing = {"asked": 1, "wins": 0, "losses": 0, "ties": 0, "inconsistent": 0, "unread": 0}
    assert scores["base", "6 * 7", "42"] == (1.0, {**nothing, "wins": 1})
    assert scores["teacher", "6 * 7", "It is 41"] == (0.0, {**nothing, "losses": 1})
    # Whoever stands first is the better one: that says nothing.
    assert scores["teacher", "2 + 2", "5"] == scores["base", "2 + 2", "22"] == (None, {**nothing, "inconsistent": 1})
    assert scores["teacher", "1 + 1", "2"] == (None, {})
    assert (notes["inconsistent"], notes["unread"]) == (0.5, 0)
    assert notes["verifier"]["precision"] == 1.0 and notes["verifier"]["kappa"] == 1.0


def test_two_say_the_same_in_both_directions(data: Path) -> None:
    ask(data, "questions.equivalent")
    reply(data, lambda s: ["The answer is: B" if "42" in s else "The answer is: A"])
    scores, _ = run(data, use="verdicts.equivalent")
    assert scores["teacher", "6 * 7", "42"][0] == 0 and scores["base", "2 + 2", "22"][0] == 1


def test_a_judge_that_never_answers_scores_nothing(data: Path) -> None:
    ask(data, "questions.points")
    reply(data, lambda shown: [None, "####", "#### 4..."])
    scores, notes = run(data, **POINTS)
    assert {score for score, _ in scores.values()} == {None}
    assert notes == {"unread": 1}


def test_one_of_two_models_may_be_listened_to(data: Path) -> None:
    ask(data, "questions.points")
    reply(data, lambda shown: ["#### 5"], "kind")
    reply(data, lambda shown: ["#### 1"], "strict")
    assert run(data, **POINTS)[0]["teacher", "1 + 1", "2"][0] == 3
    assert run(data, **POINTS, **{"from": ["strict"]})[0]["teacher", "1 + 1", "2"][0] == 1


def test_questions_about_other_answers_are_refused(data: Path) -> None:
    ask(data, "questions.points")
    reply(data, lambda shown: ["#### 5"])
    questions = [{**q, "parent_ids": ["elsewhere"]} for q in Scan(PROMPTS, (data / "prompts/judging/ask",)).pylist()]
    parquet.write(PROMPTS, data / "prompts/judging/ask", 1, [PROMPTS.rows(questions)])
    with pytest.raises(Refused, match=r"judge\.quality: no question of judging that was answered is about an answer"):
        run(data, **POINTS)


AGREEMENTS = [
    ([(True, True), (False, False)], 1.0, 1.0, 1.0),
    ([(True, False), (False, True)], 0.0, 0.0, -1.0),
    ([(True, True), (True, False), (False, True), (False, False)], 0.5, 0.5, 0.0),
    ([(True, True), (True, True)], 1.0, 1.0, None),
    ([(False, True), (False, False)], None, 0.0, 0.0),
    ([(True, False)], 0.0, None, 0.0),
]


@pytest.mark.parametrize(("known", "precision", "recall", "kappa"), AGREEMENTS)
def test_agreement_beyond_chance(known: list, precision: float | None, recall: float | None, kappa: float) -> None:
    found = judge.agreement(known)
    assert [found[key] for key in ("precision", "recall", "kappa")] == [precision, recall, kappa]


PAGE = (Path(__file__).parents[2] / "docs" / "judging.md").read_text("utf-8")


def test_the_entries_of_the_page_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    given = load(Path("params.yaml"))
    for block in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S):
        for section, entries in yaml.safe_load(block).items():
            given.setdefault(section, {}).update(entries)
    assert {"judge@quality", "judge@better", "select@judged"} <= resolve(given).instances.keys()


def test_the_queries_of_the_page_are_answered(data: Path) -> None:
    ask(data, "questions.points")
    reply(data, lambda shown: ["#### 5" if "42" in shown[0] else "#### 1"])
    run(data, **POINTS)
    ask(data, "questions.pairs")
    reply(data, lambda shown: ["A"])
    run(data, "better", use="verdicts.wins")
    rows = Scan(RESPONSES, tables(data, "train")).pylist()
    verified = [
        {**{key: row[key] for key in ("response_id", "prompt_id")}, "quantities": [],
         "score": metric_of(row["verifier"], row["answer"], row["reference"])}
        for row in rows
    ]  # fmt: skip
    parquet.write(SCORES, data / "scores/responses/train/verified", 2, [SCORES.rows(verified)])
    by_points, by_position = re.findall(r"^```sql\n(.*?)^```", PAGE, re.M | re.S)
    assert rules.query(data, by_points).to_pylist() == [
        {"points": 1.0, "answers": 5, "right": 0.4},
        {"points": 5.0, "answers": 3, "right": 1.0},
    ]
    assert rules.query(data, by_position).to_pylist() == [{"by_position": 1.0, "unread": 0.0}]


# What the plan says ---------------------------------------------------------------------------------------------------

PLANNED = """
acquire: {teacher: {use: fake.words}}
ingest:
  tasks: {pool: train, use: procedural.tasks, rows: 40, seed: 1}
  held_out: {pool: bench, use: procedural.tasks, rows: 40, seed: 7}
derive: {ask: {of: train, pool: judging, against: bench, use: questions.points}}
curate: {train: {against: bench}, judging: {against: bench, rules: [duplicates.exact]}}
generate:
  teacher: {pool: train, model: teacher, k: 4, temperature: 1.0}
  critic: {pool: judging, model: teacher, k: 1, temperature: 0.0}
judge: {quality: {of: responses/train, by: judging, use: verdicts.points}}
"""
FAULTS = [
    ({}, {"by": "judgings"}, "nothing asks about answers in the pool judgings. Add an entry to derive"),
    ({}, {"by": "train"}, "by: ingest.tasks writes into train what are no questions about answers to train"),
    (
        {"use": "expansion.evolve"},
        {},
        "by: derive.ask writes into judging what are no questions about answers to train",
    ),
    ({"use": "questions.pairs"}, {}, "by: derive.ask asks in judging for 'better', and verdicts.points reads 'points'"),
    (
        {"use": "questions.pairs", "limit": 9},
        {"use": "verdicts.wins"},
        "by: `limit` of derive.ask parts the two orders of a pair; bound the pairs by `most` there",
    ),
    ({"scale": 6}, {}, "scale: is 5, and 6 in derive.ask, which asks"),
    ({}, {"from": ["teacher"]}, "from: no entry 'teacher' of generate answers the pool judging; there are critic"),
    ({}, {"use": "verdicts.win"}, "no judge is called 'verdicts.win'"),
    ({}, {"of": "prompts/train"}, "should match pattern '^responses/'"),
]


def planned(asks: dict[str, Any], judges: dict[str, Any]) -> Plan:
    whole = yaml.safe_load(PLANNED)
    whole["derive"]["ask"] |= asks
    whole["judge"]["quality"] |= judges
    return resolve(whole)


def test_what_is_read_and_written() -> None:
    made = planned({"scale": 6}, {"scale": 6}).instances["judge@quality"]
    assert made.output == "scores/responses/train/quality"
    assert made.inputs["replies"] == ("responses/judging/critic",)
    assert json.loads(made.to_json())["traits"]["judge"]["verdicts.points"] == {"verdict": "points", "score": "sum / n"}


@pytest.mark.parametrize(("asks", "judges", "says"), FAULTS)
def test_a_fault_is_told(asks: dict[str, Any], judges: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError, match=re.escape(says)):
        planned(asks, judges)
