"""Retrieve: prompts keep what they are judged by, and are shown what is known; what is deleted is shown to nobody."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipeline.contracts import EVALS, PROMPTS, RESPONSES
from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance, Plan
from pipeline.errors import Refused
from pipeline.plan.faults import PlanError
from pipeline.plan.resolve import resolve
from pipeline.stages.retrieve import Params
from pipeline.tables import ids, parquet, rules
from pipeline.tables.parquet import Scan

PROMPT = {"carry": "How do I carry digits?", "sort": "Sort the list 3 1 2.", "odd": "Zzz?"}
# The item that a lesson was written about, what was asked then, what was said, and how it ended.
LESSONS = [
    ("add", "Somebody cannot carry digits. Write a lesson.", "Carry to the left.", "stop"),
    ("add", "Somebody cannot carry digits. Write a lesson.", "Carry to the left.", "stop"),
    ("order", "Somebody cannot sort a list. Write a lesson.", "Begin with the lowest.", "stop"),
    ("order", "Somebody cannot sort a list twice. Write a lesson.", "Look again.", "stop"),
    ("cut", "How do I carry digits?", "Never", "length"),
    ("failed", "How do I carry digits?", None, "error"),
    ("empty", "How do I carry digits?", " ", "stop"),
]


def prompt(text: str, group: str, **columns: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    return {
        "prompt_id": ids.prompt_id(messages), "messages": messages, "domain": "d", "source": "s", "group": group,
        "level": 3, "verifier": "text.line", "reference": "left", "elicitation": "labeling", **columns,
    }  # fmt: skip


def write(data: Path, lessons: list[tuple[str, str, str | None, str]] = LESSONS) -> None:
    """A pool, and a table of knowledge that two entries wrote."""
    parquet.write(PROMPTS, data / "prompts/train/tasks", 2, [PROMPTS.rows(prompt(t, g) for g, t in PROMPT.items())])
    asked = {text: prompt(text, group) for group, text, *_ in lessons}
    parquet.write(PROMPTS, data / "prompts/lessons/ask", 1, [PROMPTS.rows(asked.values())])
    rows = [
        {
            "response_id": ids.digest(group, text, lessons[:i].count(lessons[i])), "request_id": "r",
            "prompt_id": asked[text]["prompt_id"], "messages": asked[text]["messages"], "domain": "d",
            "entry": "tutor", "model_id": "m", "sample": i, "seed": i, "content": content, "finish_reason": finish,
            "attempts": 1,
        }
        for i, (group, text, content, finish) in enumerate(lessons)
    ]  # fmt: skip
    parquet.write(RESPONSES, data / "responses/lessons/tutor", 1, [RESPONSES.rows(rows)])


def run(data: Path, **params: Any) -> dict[str, dict[str, Any]]:
    """Group -> the prompt that became of it."""
    given = {"of": "train", "knowledge": "lessons", "pool": "helped", "use": "bm25.best", "least": 0.4, **params}
    made = Params.model_validate(given)
    inputs = {
        "prompts": ("prompts/train/tasks",), "asked": ("prompts/lessons/ask",), "answers": ("responses/lessons/tutor",),
    }  # fmt: skip
    output = made.output("helped")
    record = run_instance(Instance("retrieve", "helped", made, inputs, output, ""), RunSettings(), data, data)
    rows = Scan(PROMPTS, (data / output,)).pylist()
    assert record["notes"]["prompts"] == len(rows) == len(PROMPT)
    assert record["notes"]["found"] == sum(row["operator"] is not None for row in rows)
    return {row["group"]: row for row in rows}


def asked(row: dict[str, Any]) -> str:
    return row["messages"][-1]["content"]


def test_a_prompt_is_shown_what_is_known_and_keeps_what_it_is_judged_by(tmp_path: Path) -> None:
    write(tmp_path)
    before, found = {group: prompt(text, group) for group, text in PROMPT.items()}, run(tmp_path)
    carry = found["carry"]
    assert asked(carry) == "This may help:\nCarry to the left.\n\nHow do I carry digits?"
    assert carry["messages"][0] == {"role": "system", "content": "Be brief."}
    kept = ("domain", "group", "level", "verifier", "reference", "elicitation")
    assert {key: carry[key] for key in kept} == {key: before["carry"][key] for key in kept}
    assert (carry["operator"], carry["prompt_id"]) == ("bm25.best", ids.prompt_id(carry["messages"]))
    [lesson] = [r for r in Scan(RESPONSES, (tmp_path / "responses/lessons/tutor",)).pylist()
                if r["response_id"] == carry["parent_ids"][1]]  # fmt: skip
    assert lesson["content"] == "Carry to the left." and carry["parent_ids"][0] == before["carry"]["prompt_id"]
    # Nothing is known of it, and it is the prompt that it was.
    assert {key: value for key, value in found["odd"].items() if value is not None} == before["odd"]


def test_deleting_a_lesson_changes_the_prompts_that_used_it_and_no_other(tmp_path: Path) -> None:
    write(tmp_path)
    before = run(tmp_path, least=0)
    write(tmp_path, [lesson for lesson in LESSONS if lesson[0] != "add"])
    after = run(tmp_path, least=0)
    assert {group for group in PROMPT if after[group] != before[group]} == {"carry"}
    assert asked(after["carry"]) == PROMPT["carry"]


def test_several_lessons_are_shown_best_first_and_none_twice(tmp_path: Path) -> None:
    write(tmp_path)
    found = run(tmp_path, count=3)
    assert asked(found["sort"]).startswith("This may help:\nBegin with the lowest.\n\nLook again.\n\nSort")
    assert asked(found["carry"]).count("Carry to the left.") == 1
    assert [len(found[group]["parent_ids"] or []) for group in PROMPT] == [2, 3, 0]


@pytest.mark.parametrize(
    ("params", "shown"),
    [
        ({}, {"carry", "sort"}),
        ({"least": 99}, set()),
        ({"match": "answer"}, {"carry"}),
        ({"from": ["tutor"]}, {"carry", "sort"}),
        ({"parts": 3}, {"carry", "sort"}),
    ],
)
def test_who_is_shown_something(params: dict[str, Any], shown: set[str], tmp_path: Path) -> None:
    write(tmp_path)
    assert {group for group, row in run(tmp_path, **params).items() if row["operator"]} == shown


def test_a_lesson_about_the_item_itself_is_passed_over_unless_own_is_said(tmp_path: Path) -> None:
    write(tmp_path, [("carry", "Somebody cannot carry digits.", "Own.", "stop"), ("add", "digits", "Other.", "stop")])
    assert "Other." in asked(run(tmp_path, least=0)["carry"])
    assert "Own." in asked(run(tmp_path, least=0, own=True)["carry"])


def test_the_template_is_a_parameter(tmp_path: Path) -> None:
    write(tmp_path)
    assert asked(run(tmp_path, template="{prompt}\n({knowledge})")["carry"]).endswith("digits?\n(Carry to the left.)")


@pytest.mark.parametrize("lessons", [LESSONS[4:], LESSONS[:0]])
def test_without_knowledge_it_is_refused(lessons: list, tmp_path: Path) -> None:
    write(tmp_path, LESSONS)
    rows = Scan(RESPONSES, (tmp_path / "responses/lessons/tutor",)).read()
    kept = [row for row in rows.to_pylist() if row["content"] in {content for _, _, content, _ in lessons}]
    parquet.write(RESPONSES, tmp_path / "responses/lessons/tutor", 1, [RESPONSES.rows(kept)])
    with pytest.raises(Refused, match=r"retrieve\.helped: there is no knowledge"):
        run(tmp_path)


@pytest.mark.parametrize(
    "template", ["{prompt}", "{knowledge} {prompt} {prompt}", "{knowledge} {prompt} {domain}", "{}"]
)
def test_a_template_shows_both(template: str) -> None:
    with pytest.raises(ValidationError, match="in braces"):
        Params.model_validate({"of": "a", "knowledge": "b", "pool": "c", "use": "bm25.best", "template": template})


PLANNED = """
acquire: {teacher: {use: fake.words}}
ingest:
  tasks: {pool: train, use: procedural.tasks, rows: 40, seed: 1}
  held_out: {pool: bench, use: procedural.tasks, rows: 40, seed: 7}
derive: {ask: {of: train, pool: lessons, against: bench, use: expansion.evolve}}
curate: {train: {against: bench}, lessons: {against: bench, rules: [duplicates.exact]}}
generate:
  teacher: {pool: train, model: teacher, k: 1, temperature: 1.0}
  tutor: {pool: lessons, model: teacher, k: 1, temperature: 0.0}
evaluate: {plain: {model: teacher, pool: bench}}
"""
HELPED = {"of": "bench", "knowledge": "lessons", "pool": "bench_lessons", "use": "bm25.best"}
FAULTS = [
    ({"own": True}, "own: would tell a student what is known of the very item that it is judged by, and bench is a"),
    ({"from": ["teacher"]}, "from: no entry 'teacher' of generate answers the pool lessons; there are tutor"),
    ({"knowledge": "lesons"}, "nothing answers the pool lesons. Add an entry to generate with `pool: lesons`"),
    ({"pool": "bench"}, "pool: is a pool that it reads; name another"),
    ({"pool": "lessons"}, "pool: is a pool that it reads; name another"),
    ({"use": "bm25.bst"}, "no retriever is called 'bm25.bst'"),
    ({"least": -1}, "least: Input should be greater than or equal to 0"),
]


def planned(**changes: Any) -> Plan:
    return resolve({**yaml.safe_load(PLANNED), "retrieve": {"helped": {**HELPED, **changes}}})


def test_what_is_read_and_written_and_when_own_is_allowed() -> None:
    made = planned(of="train", pool="train_lessons", own=True).instances["retrieve@helped"]
    assert made.output == "prompts/train_lessons/helped" and made.inputs["answers"] == ("responses/lessons/tutor",)


@pytest.mark.parametrize(("changes", "says"), FAULTS)
def test_a_fault_is_told(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError, match=re.escape(says)):
        planned(**changes)


PAGE = (Path(__file__).parents[2] / "docs" / "knowledge.md").read_text("utf-8")


def test_the_entries_of_the_page_are_resolved() -> None:
    [block] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    given = yaml.safe_load(PLANNED)
    given["acquire"]["base"] = {"use": "fake.words"}
    given |= yaml.safe_load(block)
    assert {"retrieve@with_lessons", "evaluate@helped"} <= resolve(given).instances.keys()


def test_knowledge_where_the_student_is_unsure_is_a_query(tmp_path: Path) -> None:
    """Of three items the student knows one and is sure of it, knowledge helps with one, and none is known of the last;
    it is wrong about both, and less sure."""
    write(tmp_path)
    found = run(tmp_path, of="train", pool="bench_lessons", least=0.4)
    plain = {prompt(text, group)["prompt_id"]: group for group, text in PROMPT.items()}
    right = {"plain": {"sort"}, "helped": {"carry"}}
    asked_as = {"plain": plain, "helped": {row["prompt_id"]: group for group, row in found.items()}}
    for name, items in asked_as.items():
        rows = [
            {
                "task": name, "item_id": key, "prompt_id": key, "domain": "d", "model": "base", "measure": "accuracy",
                "metric": float(group in right[name]), "confidence": 0.95 if group == "sort" else 0.6,
                "finish_reason": "stop",
            }
            for key, group in items.items()
        ]  # fmt: skip
        parquet.write(EVALS, tmp_path / "evals" / name, 1, [EVALS.rows(rows)])
    shown, gated = re.findall(r"^```sql\n(.*?)^```", PAGE, re.M | re.S)
    assert {asked(row) for row in found.values() if row["operator"]} == {
        row["shown"] for row in rules.query(tmp_path, shown).to_pylist()
    }
    lines = [tuple(map(float, row.values())) for row in rules.query(tmp_path, gated).to_pylist()]
    assert lines == [(0, 0.333, 0), (0.5, 0.333, 0), (0.7, 0.667, 0.67), (0.9, 0.667, 0.67), (1.01, 0.333, 1)]
