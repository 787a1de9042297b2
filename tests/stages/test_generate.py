"""Generate: who answered stands in every row, and what was asked, where it is not the prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.contracts import DROPS, PROMPTS, RESPONSES
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.errors import Refused
from pipeline.scorers.consistency import agreement
from pipeline.stages.generate import Params, generate
from pipeline.tables import ids, parquet
from pipeline.tables.parquet import Scan

QUESTION = [{"role": "user", "content": "add 001 002"}]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One prompt with a worked solution, and a model that answers with it."""
    prompt = {
        "prompt_id": ids.prompt_id(QUESTION), "messages": QUESTION, "domain": "add", "source": "test", "group": "g",
        "level": 0, "verifier": "text.marked", "reference": "3", "solution": "1+2#3",
    }  # fmt: skip
    parquet.write(PROMPTS, tmp_path / "prompts", 1, [PROMPTS.rows([prompt])])
    parquet.write(DROPS, tmp_path / "drops", 1, [])
    (tmp_path / "model").mkdir()
    card = {"backend": "recorded.solutions", "model_id": "recorded.solutions"}
    (tmp_path / "model" / "model.json").write_text(json.dumps(card), "utf-8")
    return tmp_path


def answers(data: Path, entry: str, temperature: float, k: int) -> list[dict]:
    """The rows that the entry of generate gives."""
    params = Params(pool="train", model="model", k=k, temperature=temperature, seed=1)
    prompts, drops = Scan(PROMPTS, (data / "prompts",), 0), Scan(DROPS, (data / "drops",), 0)
    how = How(RunSettings(), data, entry)
    [batch] = generate.function(params, prompts, drops, data / "model", how, entry)
    return batch.to_pylist()


def test_two_entries_that_ask_one_model_are_told_apart(data: Path) -> None:
    loose, greedy = answers(data, "loose", 1.0, k=3), answers(data, "greedy", 0.0, k=1)
    assert {row["entry"] for row in loose} == {"loose"}
    assert {row["entry"] for row in greedy} == {"greedy"}
    columns = {name: [row[name] for row in loose + greedy] for name in ("prompt_id", "entry", "answer")}
    votes = agreement()(pa.table(columns))["quantities"].to_pylist()
    assert [dict(quantities)["samples"] for quantities in votes] == [3, 3, 3, 1]


def elicited(data: Path, prompts: list[dict[str, Any]], k: int = 1, **elicit: str) -> list[dict[str, Any]]:
    """The answers of a fake model, which says words of what it is asked; without a prompt of the entry's own if none is
    given."""
    (data / "model" / "model.json").write_text(
        '{"backend": "fake.words", "model_id": "fake", "wrong": 0, "delay_s": 0}', "utf-8"
    )
    parquet.write(PROMPTS, data / "prompts", 1, [PROMPTS.rows(prompts)])
    section = {"pool": "train", "model": "model", "k": k, "temperature": 0.0, "seed": 1, "elicit": elicit or None}
    scans = Scan(PROMPTS, (data / "prompts",), 0), Scan(DROPS, (data / "drops",), 0)
    how = How(RunSettings(), data, "rich")
    [batch] = generate.function(Params.model_validate(section), *scans, data / "model", how, "rich")
    return batch.to_pylist()


def prompt(text: str, **columns: Any) -> dict[str, Any]:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    own = {"prompt_id": ids.prompt_id(turns), "messages": turns, "domain": "add", "source": "s", "group": text}
    return {**own, "verifier": "numeric.last", "reference": "7", **columns}


@pytest.mark.parametrize(
    ("elicit", "asked"),
    [
        ({"template": "Think about {prompt} ({domain}, {level}): {solution} = {reference}"},
         ["Be brief.", "Think about 3 + 4 (add, 2): 3 and 4 = 7"]),
        ({"template": "{{braces}} stay: {prompt}"}, ["Be brief.", "{braces} stay: 3 + 4"]),
        ({"system": "Show your work."}, ["Show your work.", "3 + 4"]),
        ({"system": "Show your work.", "template": "{reference}"}, ["Show your work.", "7"]),
    ],
)  # fmt: skip
def test_a_rich_prompt_is_asked_and_the_plain_one_is_the_rows(
    data: Path, elicit: dict[str, str], asked: list[str]
) -> None:
    one = prompt("3 + 4", level=2, solution="3 and 4")
    [row] = elicited(data, [one], **elicit)
    assert [turn["content"] for turn in row["asked"]] == asked
    assert [turn["role"] for turn in row["asked"]] == ["system", "user"]
    assert (row["messages"], row["prompt_id"]) == (one["messages"], one["prompt_id"])
    assert (row["verifier"], row["reference"]) == ("numeric.last", "7")


def test_a_system_turn_is_added_to_a_prompt_without_one(data: Path) -> None:
    [row] = elicited(data, [{**prompt("3 + 4"), "messages": QUESTION}], system="Show your work.")
    assert row["asked"] == [{"role": "system", "content": "Show your work."}, *QUESTION]


def test_an_answer_to_a_rich_prompt_is_another_answer(data: Path) -> None:
    """Another row and another request, so that neither is taken for the other; what is asked is in the memo by its text
    and by whose question it is."""
    one = prompt("3 + 4")
    [plain] = elicited(data, [one])
    [rich] = elicited(data, [one], template="Say: {prompt}")
    assert plain["asked"] is None and plain["content"] == rich["content"] == "fake: 7"
    for name in ("response_id", "request_id", "seed"):
        assert plain[name] != rich[name]
    [again] = elicited(data, [one], template="Say: {prompt}")
    assert again == rich


def test_prompts_that_a_template_makes_equal_are_two_questions(data: Path) -> None:
    """They differ in what it leaves out: each has answers of its own, with ids of their own."""
    rows = elicited(data, [prompt("3 + 4"), prompt("5 + 2")], k=3, template="The answer is {reference}. Why?")
    assert len({row["response_id"] for row in rows}) == len({row["request_id"] for row in rows}) == 6
    assert len({row["prompt_id"] for row in rows}) == 2
    assert [row["sample"] for row in rows] == [0, 1, 2] * 2
    assert all(row["asked"][-1]["content"] == "The answer is 7. Why?" for row in rows)


@pytest.mark.parametrize(
    ("elicit", "told"),
    [
        ({"template": "{answer}"}, r"\{answer\} is no column of a prompt; there are prompt, domain, level"),
        ({"template": "{messages.0.content}"}, "is no column of a prompt"),
        ({"template": "{prompt!r}"}, "in braces stands a column and nothing else"),
        ({"template": "{prompt"}, "expected '}'"),
        ({"template": "{prompt}"}, "asks what the prompt asks"),
        ({}, "asks what the prompt asks"),
        ({"sytem": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_what_a_template_cannot_name_is_a_fault(elicit: dict[str, str], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Params.model_validate({"pool": "p", "model": "m", "k": 1, "temperature": 0.0, "seed": 1, "elicit": elicit})


def test_a_prompt_without_what_the_template_names_is_refused(data: Path) -> None:
    one = prompt("3 + 4")
    with pytest.raises(Refused, match=rf"elicit: prompt {one['prompt_id']} has no such column: .*'solution'"):
        elicited(data, [one], template="{solution}: {prompt}")


def test_a_server_that_was_changed_on_the_way_is_reported(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [row] = answers(data, "entry", 0.0, k=1)
    how = How(RunSettings(), data, "generate@entry")
    params = Params(pool="train", model="model", k=1, temperature=0.0, seed=1)
    for prints, noted in (((None, "fp_a", "fp_a"), {}), (("fp_b", "fp_a", None, "fp_b"), {"fp_a": 1, "fp_b": 2})):
        rows = [{**row, "response_id": str(i), "fingerprint": name} for i, name in enumerate(prints)]
        parquet.write(RESPONSES, data / "out", 1, [RESPONSES.rows(rows)])
        notes: dict[str, Any] = {}
        assert generate.ends is not None
        generate.ends(params, out=data / "out", notes=notes, how=how)
        assert notes.get("builds", {}) == noted
        said = capsys.readouterr().err
        assert ("changed on the way (system_fingerprint: fp_a 1, fp_b 2)" in said) is bool(noted)
