"""Derive: what nothing may be made of, who the parents of every row are, and what is told of the rest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.contracts import DROPS, PROMPTS, RESPONSES
from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance
from pipeline.errors import Refused
from pipeline.kinds.verifier import answer_of
from pipeline.operators import expansion
from pipeline.sandbox import unsafe
from pipeline.stages.derive import Params
from pipeline.tables import ids, parquet, tensors
from pipeline.tables.parquet import Scan

WALLS = "unshare" if unsafe() is None else "none"


def prompt(text: str, reference: str | None = None, **columns: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    verifier = None if reference is None else "numeric.last"
    own = {"prompt_id": ids.prompt_id(messages), "messages": messages, "domain": "add", "source": "s", "group": text}
    return {**own, "verifier": verifier, "reference": reference, **columns}


def answer(to: dict[str, Any], content: str, entry: str = "teacher", **columns: Any) -> dict[str, Any]:
    own = ids.digest("answer", to["prompt_id"], content, entry)
    return {
        "response_id": own, "request_id": own, **{name: to[name] for name in ("prompt_id", "messages", "domain")},
        "verifier": to["verifier"], "reference": to["reference"], "entry": entry, "model_id": entry, "sample": 0,
        "seed": 0, "content": content, "answer": answer_of(to["verifier"], content), "finish_reason": "stop",
        "attempts": 1, **columns,
    }  # fmt: skip


POOL = [prompt(f"What is {i} + {i}?", str(2 * i)) for i in range(4)]
BENCH = [prompt("Another.", group="held out")]
EVOLVED = {"use": "expansion.evolve", "way": "reason"}
WHOLE = {"use": "written.prompts", "form": "whole"}


def run(
    data: Path, pool: Sequence[dict] = POOL, answers: Sequence[dict] = (), bench: Sequence[dict] = BENCH,
    dropped: Sequence[str] = (), **section: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows that an entry makes of a pool, in the order of their ids."""
    parquet.write(PROMPTS, data / "prompts/train/mine", 1, [PROMPTS.rows(pool)])
    parquet.write(PROMPTS, data / "prompts/bench/theirs", 1, [PROMPTS.rows(bench)])
    drops = [{"prompt_id": key, "rule": "exact", "evidence": "twin"} for key in dropped]
    parquet.write(DROPS, data / "drops/train", 1, [DROPS.rows(drops)])
    parquet.write(RESPONSES, data / "responses/train/all", 1, [RESPONSES.rows(answers)])
    params = Params.model_validate({"of": "train", "pool": "more", "against": "bench", "seed": 3, **section})
    inputs = {
        "prompts": ("prompts/train/mine",), "drops": ("drops/train",), "responses": ("responses/train/all",),
        "against": ("prompts/bench/theirs",),
    }  # fmt: skip
    run_instance(Instance("derive", "made", params, inputs, params.output("made"), ""), RunSettings(), data, data)
    return sorted(Scan(PROMPTS, (data / "prompts/more/made",)).pylist(), key=lambda row: row["prompt_id"])


def texts(rows: Sequence[dict]) -> list[str]:
    return sorted(row["messages"][-1]["content"] for row in rows)


def notes(data: Path) -> dict[str, Any]:
    """What is kept of the run."""
    return json.loads((data / ".runs/derive/made.json").read_text("utf-8"))["notes"]


def test_nothing_is_made_of_what_was_dropped_or_is_held_out(tmp_path: Path) -> None:
    """A variant of an item is of the item's group, and so is held out with it."""
    bench = [prompt("In other words.", group=POOL[1]["group"])]
    answers = [answer(p, f"Go on from {i}.") for i, p in enumerate(POOL)]
    for section in (EVOLVED, WHOLE):
        rows = run(tmp_path, answers=answers, bench=bench, dropped=[POOL[0]["prompt_id"]], **section)
        of = {parent for row in rows for parent in row["parent_ids"]}
        left = {p["prompt_id"] for p in POOL[2:]} if section is EVOLVED else {a["response_id"] for a in answers[2:]}
        assert of == left and len(rows) == 2
        assert notes(tmp_path)["held_out"] == {"n": 1, "of": 3}


def test_a_pool_that_is_all_held_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="every prompt of train is of a group that bench has"):
        run(tmp_path, bench=POOL, **EVOLVED)


def test_every_row_says_what_it_was_made_of(tmp_path: Path) -> None:
    [row] = run(tmp_path, POOL[:1], **EVOLVED)
    assert (row["parent_ids"], row["operator"]) == ([POOL[0]["prompt_id"]], "expansion.evolve")
    assert (row["elicitation"], row["domain"], row["group"]) == ("expansion", "add", POOL[0]["group"])
    assert (row["verifier"], row["reference"], row["solution"]) == (None, None, None)
    said = answer(POOL[0], "1. One.\n2. Two.")
    rows = run(tmp_path, POOL[:1], [said], use="written.prompts")
    assert texts(rows) == ["One.", "Two."] and {row["group"] for row in rows} == {POOL[0]["group"]}
    assert all((row["parent_ids"], row["operator"]) == ([said["response_id"]], "written.prompts") for row in rows)


@pytest.mark.parametrize("asked", ["expansion", "labeling", None])
def test_what_is_read_from_an_answer_is_of_the_label_that_was_asked_for(tmp_path: Path, asked: str | None) -> None:
    question = {**POOL[0], "elicitation": asked}
    [row] = run(tmp_path, [question], [answer(question, "1. One.")], use="written.prompts")
    assert row["elicitation"] == (asked or "labeling")


def test_parents_of_several_groups_give_a_group_of_its_own(tmp_path: Path) -> None:
    rows = run(tmp_path, use="expansion.instruct", rows=2, shown=3)
    assert all(len(row["parent_ids"]) == 3 for row in rows)
    assert len({row["group"] for row in rows} - {p["group"] for p in POOL}) == len(rows)


ANSWERS = [
    answer(POOL[1], "2"),
    answer(POOL[1], "3"),
    answer(POOL[2], "4", "base"),
    answer(POOL[2], "5", "base"),
    answer(POOL[3], "6", finish_reason="length"),
    answer(POOL[3], "none at all", "base"),
]


@pytest.mark.parametrize(
    ("section", "found"),
    [
        ({}, ["2", "3", "4", "5", "none at all"]),
        ({"which": "right"}, ["2", "4"]),
        ({"which": "wrong"}, ["3", "5", "none at all"]),
        ({"from": ["base"]}, ["4", "5", "none at all"]),
        ({"from": ["base"], "which": "right"}, ["4"]),
    ],
)
def test_answers_are_chosen_by_who_gave_them_and_whether_they_are_right(
    tmp_path: Path, section: dict[str, Any], found: list[str]
) -> None:
    assert texts(run(tmp_path, answers=ANSWERS, **WHOLE, **section)) == found


def test_domains_are_chosen_by_name(tmp_path: Path) -> None:
    pool = [*POOL[:2], prompt("Sort it.", domain="sort")]
    assert [row["domain"] for row in run(tmp_path, pool, domains=["sort"], **EVOLVED)] == ["sort"]
    with pytest.raises(Refused, match=r"made\.domains: no prompt is of mul; there are add, sort"):
        run(tmp_path, pool, domains=["mul", "sort"], **EVOLVED)


def test_where_nothing_can_be_judged_no_answer_is_right(tmp_path: Path) -> None:
    unjudged = prompt("Say it.")
    with pytest.raises(Refused, match=r"which: wrong: none of 1 answers can be judged"):
        run(tmp_path, [unjudged], [answer(unjudged, "so")], which="wrong", **WHOLE)


def test_a_limit_is_drawn_by_the_ids(tmp_path: Path) -> None:
    pool = [prompt(f"What is {i}?") for i in range(40)]
    every = run(tmp_path, pool, **EVOLVED)
    some, more = (run(tmp_path, pool, limit=n, **EVOLVED) for n in (5, 9))
    assert len(some) == 5 and all(row in more for row in some) and all(row in every for row in more)
    assert some != every[:5] and run(tmp_path, pool[::-1], limit=5, **EVOLVED) == some


def test_rows_are_the_same_in_any_number_of_parts(tmp_path: Path) -> None:
    pool = [prompt(f"What is {i}?") for i in range(40)]
    rows = run(tmp_path, pool, **EVOLVED)
    assert run(tmp_path, pool, parts=7, **EVOLVED) == rows
    assert Scan(PROMPTS, (tmp_path / "prompts/more/made",)).parts == 7


def test_a_prompt_that_was_written_twice_is_one_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By one answer, and by two."""
    said = [answer(POOL[1], "1. Same.\n2. Same.\n3. Other."), answer(POOL[2], "1. Same.")]
    assert texts(run(tmp_path, answers=said, use="written.prompts")) == ["Other.", "Same."]
    assert notes(tmp_path)["repeated"] == 2
    assert "2 prompts repeat an earlier one and are left out" in capsys.readouterr().err


def labelled(*references: object) -> str:
    return json.dumps([{"prompt": f"Task {i}", "reference": reference} for i, reference in enumerate(references)])


def test_a_label_that_the_verifier_cannot_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = [answer(POOL[1], labelled("so 1,200.0", 4, "between 3 and 5")), answer(POOL[2], "I cannot.")]
    rows = run(tmp_path, answers=said, use="written.tasks", verifier="numeric.last")
    assert {(row["verifier"], row["reference"]) for row in rows} == {("numeric.last", "4")}
    why = "numeric.last cannot read the reference as one whole answer"
    assert notes(tmp_path)["unreadable"] == {why: 2, "no tasks are written in it (JSON)": 1}
    assert f"3 of what 2 parents gave could not be used: 2 x {why}" in capsys.readouterr().err


def test_two_labels_of_one_task_are_a_conflict(tmp_path: Path) -> None:
    twice = '[{"prompt": "x", "reference": 1}, {"prompt": "x", "reference": 2}, {"prompt": "x", "reference": 1}]'
    [row] = run(tmp_path, answers=[answer(POOL[1], twice)], use="written.tasks", verifier="numeric.last")
    assert row["reference"] == "1"
    [(why, count)] = notes(tmp_path)["unreadable"].items()
    assert "has another reference ('1', not '2')" in why and count == 1


@pytest.mark.parametrize(
    ("answers", "section", "told"),
    [
        ([answer(POOL[1], "I cannot.")], {"use": "written.tasks"}, "made of 1 parents: 1 x no tasks are written in it"),
        ([], {"use": "written.tasks"}, "of 0 parents; there is nothing to derive from"),
        ([answer(POOL[1], "2")], {"use": "lessons.summary"}, "no prompt was made of 1 parents$"),
        ([answer(POOL[1], "x" * 99)], {"use": "written.prompts", "form": "lines", "max_prompt_chars": 98},
         "the prompt has more than max_prompt_chars 98 characters"),
    ],
)  # fmt: skip
def test_where_nothing_is_made_the_reason_is_told(
    tmp_path: Path, answers: list[dict], section: dict[str, Any], told: str
) -> None:
    with pytest.raises(Refused, match=told):
        run(tmp_path, answers=answers, **section)


def test_an_empty_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is nothing to derive from"):
        run(tmp_path, [], **EVOLVED)


def test_prompts_about_arrays_are_refused(tmp_path: Path) -> None:
    image = tensors.cell({"image": np.zeros((2, 2), np.uint8)})
    with pytest.raises(Refused, match="about arrays, and an operator sees words alone"):
        run(tmp_path, [{**POOL[0], "inputs": image}], **EVOLVED)


def test_a_row_names_the_verifier_of_its_entry_of_its_parent_or_of_its_operator(tmp_path: Path) -> None:
    said = [answer(POOL[1], "2")]
    entry = run(tmp_path, answers=said, verifier={"use": "text.choice", "choices": 4}, **WHOLE)
    assert [row["verifier"] for row in entry] == ["text.choice {choices: 4}"]
    parent = run(tmp_path, answers=said, use="rationales.right", verifier="text.line")
    assert [(row["verifier"], row["reference"]) for row in parent] == [("numeric.last", "2")]
    own = run(tmp_path, POOL[:1], use="aspects.yes_no", questions=["Is it long?"], verifier="text.exact")
    assert [row["verifier"] for row in own] == ["text.line"]


def test_what_rows_may_name_is_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an edit of the verifier would run nothing again."""
    given = {"of": "a", "pool": "b", "against": "c", "seed": 1, "verifier": "text.exact"}
    params = Params.model_validate({**given, "use": "aspects.yes_no", "questions": ["Is it long?"]})
    assert params.names("verifier") == {"text.line", "text.exact"}
    child = expansion.Child
    monkeypatch.setattr(
        expansion, "Child", lambda parents, columns: child(parents, {**columns, "verifier": "text.line"})
    )
    with pytest.raises(ValueError, match=r"names the verifier text\.line, and declares none of that name"):
        run(tmp_path, **EVOLVED)


def test_a_traced_prompt_is_the_prompt_itself(tmp_path: Path) -> None:
    right = answer(POOL[2], "```python\nx = 2\nprint(x + x)\n```")
    answers = [right, answer(POOL[1], "print(3)")]
    [row] = run(tmp_path, answers=answers, use="programs.traced", sandbox=WALLS)
    same = ("prompt_id", "messages", "domain", "group", "verifier", "reference")
    assert {name: row[name] for name in same} == {name: POOL[2][name] for name in same}
    assert row["solution"] == "x = 2  # x = 2\nprint(x + x)  # prints 4"
    assert row["parent_ids"] == [right["response_id"]]
    assert notes(tmp_path)["unreadable"] == {"its program prints something else": 1}
