"""The page docs/deriving.md: every entry of it, from a pool to one that was made of it, and from a program to words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.contracts import PROMPTS, RESPONSES
from pipeline.core.methods import KINDS, available
from pipeline.sandbox import unsafe
from pipeline.tables.parquet import Scan
from tests.e2e.brought import stillhouse
from tests.e2e.conftest import ROOT, Workspace, make_workspace

PAGE = (ROOT / "docs" / "deriving.md").read_text("utf-8")
ENTRIES = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)]
METHODS = sorted({*re.findall(r"use: (\w+\.\w+)", PAGE), *re.findall(r"`(\w+\.(?!md|operator)\w+)`", PAGE)})
SUMS = [(f"What is {i} + {i + 1}?", f"```python\nx = {i}\nprint(x + {i + 1 if i % 3 else 0})\n```") for i in range(6)]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_page_is_there(name: str) -> None:
    assert any(name in available(kind) for kind in KINDS)


def change(params: dict[str, Any]) -> None:
    """Nothing but the page's entries, on two small pools, with a teacher and a programmer that are nobody."""
    seed = params["seed"]
    params.clear()
    params["run"] = {"executor": "inline"}
    params["seed"] = seed
    params["acquire"] = {"teacher": {"use": "fake.words"}, "programmer": {"use": "local.solutions"}}
    tasks = {"use": "procedural.tasks", "rows": 40}
    sums = {"use": "files.jsonl", "path": "data/own/sums.jsonl", "verifier": "numeric.last"}
    params["ingest"] = {
        "train": {"pool": "train", **tasks, "seed": 1}, "bench": {"pool": "bench", **tasks, "seed": 2},
        "sums": {"pool": "tasks", **sums},
    }  # fmt: skip
    params["curate"] = {"train": {"against": "bench"}}
    params["generate"] = {"train": {"pool": "train", "model": "teacher", "k": 1, "temperature": 1.0}}
    params["derive"] = {}
    for page in ENTRIES:
        for section, entries in page.items():
            params[section] |= entries
    # An answer of nobody's is one prompt.
    params["derive"]["written"]["form"] = "whole"
    params["derive"]["asks"]["rows"] = 12
    if unsafe():
        params["derive"]["traced"]["sandbox"] = "none"


def rows(data: Path, table: Any, folder: str) -> list[dict[str, Any]]:
    return Scan(table, (data / folder,)).pylist()


@pytest.fixture(scope="module")
def derived(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which every answer of the page was given."""
    workspace = make_workspace(tmp_path_factory.mktemp("derived") / "repo", env, change)
    own = workspace.data / "own"
    own.mkdir(parents=True, exist_ok=True)
    lines = [{"prompt": q, "reference": str(2 * i + 1), "solution": s} for i, (q, s) in enumerate(SUMS)]
    (own / "sums.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    workspace.repro("generate@grown", "generate@worked", "generate@thoughts")
    return workspace


@pytest.mark.e2e
@pytest.mark.long
def test_from_a_pool_to_a_larger_one_and_back_by_its_lineage(derived: Workspace) -> None:
    asks, grown = (rows(derived.data, PROMPTS, f"prompts/{pool}") for pool in ("asks/asks", "grown/written"))
    given = {row["prompt_id"] for row in rows(derived.data, PROMPTS, "prompts/train/train")}
    answered = {row["response_id"]: row for row in rows(derived.data, RESPONSES, "responses/asks/asks")}
    assert len(asks) == 12 and all(set(row["parent_ids"]) <= given for row in asks)
    assert grown and all(row["operator"] == "written.prompts" for row in grown)
    for row in grown:
        [parent] = row["parent_ids"]
        assert answered[parent]["content"].strip() == row["messages"][-1]["content"]
        assert answered[parent]["prompt_id"] in {ask["prompt_id"] for ask in asks}
    [first, *_] = grown
    told = stillhouse(derived, "lineage", first["prompt_id"])
    assert f"made by written.prompts of {first['parent_ids'][0]}" in told
    assert "made by expansion.instruct of" in stillhouse(derived, "lineage", first["parent_ids"][0])


@pytest.mark.e2e
@pytest.mark.long
def test_a_rich_prompt_is_asked_and_the_plain_one_trained_on(derived: Workspace) -> None:
    plain = {row["prompt_id"]: row["messages"] for row in rows(derived.data, PROMPTS, "prompts/grown/written")}
    answers = rows(derived.data, RESPONSES, "responses/grown/worked")
    assert answers
    for row in answers:
        system, question = row["asked"]
        assert system["content"] == "You teach. Show every step."
        assert row["messages"] == plain[row["prompt_id"]]
        assert question["content"] == row["messages"][-1]["content"] + "\n\nThink step by step."


@pytest.mark.e2e
@pytest.mark.long
def test_a_program_that_is_right_becomes_what_the_teacher_is_shown(derived: Workspace) -> None:
    traced = rows(derived.data, PROMPTS, "prompts/traced/traced")
    right = sorted(question for i, (question, _) in enumerate(SUMS) if i % 3)
    assert sorted(row["messages"][-1]["content"] for row in traced) == right
    answers = rows(derived.data, RESPONSES, "responses/traced/thoughts")
    assert len(answers) == len(right)
    for row in answers:
        assert f"# prints {row['reference']}\n" in row["asked"][-1]["content"] and len(row["messages"]) == 1


@pytest.mark.e2e
@pytest.mark.long
def test_what_has_not_changed_is_not_made_again(derived: Workspace) -> None:
    assert derived.repro("generate@grown", "generate@thoughts") == []
    before = derived.hashes()
    derived.edit(lambda params: params["derive"]["asks"].update(rows=13))
    again = derived.repro("generate@grown", "generate@thoughts")
    assert again == [
        "plan",
        "derive@asks",
        "curate@asks",
        "generate@asks",
        "derive@written",
        "curate@grown",
        "generate@grown",
    ]
    after = derived.hashes()
    assert before["data/prompts/traced/traced"] == after["data/prompts/traced/traced"]
    assert before["data/prompts/grown/written"] != after["data/prompts/grown/written"]
