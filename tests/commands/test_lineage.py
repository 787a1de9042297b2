"""Lineage: a model back to its prompts, a row forward to what it taught, and nothing that is not so."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.commands import lineage
from pipeline.contracts import EVALS, EXAMPLES, PROMPTS, RESPONSES, SCORES, SELECTIONS, Table
from pipeline.errors import Refused
from pipeline.plan.disk import write
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.tables import parquet
from tests.tables.test_sql import response, score

ROOT = Path(__file__).parents[2]
PROMPT, OTHER = "aa11" * 8, "aa22" * 8
KEPT, LEFT, STRANGE = "bb11" * 8, "bb12" * 8, "cc11" * 8
CHILD, GRANDCHILD = "ab11" * 8, "ab22" * 8
EXAMPLE = "dd11" * 8
HOSTILE = "\x1b[2Jgone\nresponse 00  responses/train/teacher"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plan of params.yaml, two prompts, three answers, of which one was kept, packed and trained on."""
    root = tmp_path_factory.mktemp("run") / "data"
    with contextlib.chdir(ROOT):
        given = load(Path("params.yaml"))
        given["acquire"]["teacher"] |= {"licence": "MIT", "terms": "free"}
        resolved = resolve(given)
    write(resolved, root)

    def put(table: Table, folder: str, rows: list[dict]) -> None:
        parquet.write(table, root / folder, 1, [table.rows(rows)])

    def prompt(key: str) -> dict:
        turn = {"role": "user", "content": HOSTILE}
        return {"prompt_id": key, "messages": [turn], "domain": "add", "source": "by hand", "group": key}

    def decision(key: str, prompt: str, kept: bool) -> dict:
        reason = "preferred" if kept else "over_budget"
        own = {"response_id": key, "prompt_id": prompt, "domain": "add", "kept": kept, "weight": float(kept)}
        return {**own, "reason": reason, "tokens": 5}

    def judged(model: str, metric: float) -> dict:
        own = {"task": "bench", "item_id": OTHER, "prompt_id": OTHER, "domain": "add", "model": model}
        return {**own, "metric": metric, "measure": "accuracy", "prediction": "2", "finish_reason": "stop"}

    put(PROMPTS, "prompts/train/tasks", [prompt(PROMPT)])
    put(PROMPTS, "prompts/bench/held_out", [prompt(OTHER)])
    evolved = {**prompt(CHILD), "parent_ids": [PROMPT, OTHER], "operator": "expansion.instruct"}
    written = {**prompt(GRANDCHILD), "parent_ids": [KEPT], "operator": "written.prompts"}
    put(PROMPTS, "prompts/asks/more", [evolved, written])
    both = [response(KEPT, PROMPT), {**response(LEFT, PROMPT), "content": HOSTILE}]
    put(RESPONSES, "responses/train/teacher", both)
    put(RESPONSES, "responses/train/base", [response(STRANGE, PROMPT, "base")])
    put(SCORES, "scores/responses/train/agreement", [score(KEPT, PROMPT, 1.0), score(LEFT, PROMPT, None)])
    put(
        SELECTIONS, "selections/responses/train/coverage", [decision(KEPT, PROMPT, True), decision(LEFT, PROMPT, False)]
    )
    example = {
        "example_id": EXAMPLE, "prompt_id": PROMPT, "domain": "add", "token_ids": [1, 2], "spans": [],
        "weight": 1.0, "template_hash": "t", "tokenizer_hash": "t", "response_ids": [KEPT],
    }  # fmt: skip
    put(EXAMPLES, "examples/coverage", [example])
    put(EVALS, "evals/kd", [judged("kd", 1.0)])
    put(EVALS, "evals/random_sft", [judged("random_sft", 0.0)])

    instance = resolved.instances["train@kd"]
    record = {
        "plan": json.loads(instance.to_json()), "exactness": "repeatable", "rows": None, "output": "0123456789abcdef",
        "commit": "c0ffee", "finished": "2026-01-01T00:00:00Z", "wall_s": 12.5, "packages": {"torch": "2.0"},
    }  # fmt: skip
    (root / ".runs" / "train").mkdir(parents=True)
    (root / ".runs" / "train" / "kd.json").write_text(json.dumps(record), "utf-8")
    stale = {**record, "plan": {"stage": "train"}}
    (root / ".runs" / "train" / "random_sft.json").write_text(json.dumps(stale), "utf-8")
    return root


def found(data: Path, wanted: str) -> dict:
    story = lineage.find(data, wanted)
    assert isinstance(story, dict)
    return story


def test_a_model_leads_back_to_its_prompts(data: Path) -> None:
    nodes = lineage.find(data, "kd")
    assert isinstance(nodes, list)
    by_folder = {node.folder: node for node in nodes}
    assert nodes[0].folder == "models/kd" and len(by_folder) == len(nodes)
    path = (
        "models/kd", "signals/coverage/teacher", "examples/coverage", "selections/responses/train/coverage",
        "scores/responses/train/agreement", "responses/train/teacher", "prompts/train/tasks",
    )  # fmt: skip
    for upper, lower in itertools.pairwise(path):
        assert lower in by_folder[upper].inputs
    assert "models/base" in by_folder["examples/coverage"].inputs  # its tokenizer
    assert by_folder["models/kd"].methods == ("divergence.forward",)
    assert by_folder["responses/train/teacher"].rows == 2
    assert (by_folder["selections/responses/train/coverage"].kept, by_folder["examples/coverage"].rows) == (1, 1)
    assert "selections/responses/train/random" not in by_folder


def test_a_tree_tells_everything_once(data: Path) -> None:
    nodes = lineage.find(data, "train@kd")
    assert isinstance(nodes, list)
    lines = lineage.tree(nodes)
    for node in nodes:
        assert len([line for line in lines if line.lstrip("│├└─ ").startswith(node.folder + "  [")]) == 1
    assert "12.5 s  digest 0123456789ab" in lines[0]
    assert "packages  torch 2.0" in lines


def test_both_ways_tell_code_parameters_commit_and_licences(data: Path) -> None:
    nodes = lineage.find(data, "kd")
    assert isinstance(nodes, list)
    for lines, also in ((lineage.tree(nodes), True), (lineage.story(found(data, KEPT)), False)):
        told = lines[lines.index("sources") :]
        assert "  acquire@teacher  licence MIT, terms free" in told
        assert "  ingest@tasks  licence not said, terms not said" in told
        [line] = [line for line in lines if line.startswith("  train@kd")]
        code = nodes[0].code
        assert line.startswith(f"  train@kd  {code[:8]}  c0ffee  {{") and '"epochs": 5' in line and len(code) == 32
        assert any(line.startswith("  probe@teacher") for line in lines) is also


def test_a_record_of_another_plan_is_not_told(data: Path) -> None:
    nodes = lineage.find(data, "random_sft")
    assert isinstance(nodes, list)
    assert "no record of its run here" in lineage.tree(nodes)[0] and "digest" not in lineage.tree(nodes)[0]


def test_an_answer_leads_to_what_it_taught(data: Path) -> None:
    story = found(data, KEPT[:6])
    assert (story["what"], story["id"]) == ("responses", KEPT)
    assert [p["prompt_id"] for p in story["prompts"]] == [PROMPT]
    assert [r["response_id"] for r in story["responses"]] == [KEPT]
    assert [s["kept"] for s in story["selections"]] == [True]
    assert [e["example_id"] for e in story["examples"]] == [EXAMPLE]
    assert story["trained"] == {"coverage": ["coverage_sft", "kd"]}
    assert [(e["model"], e["accuracy"], e["n"]) for e in story["judged"]] == [("kd", 1.0, 1)]


def test_an_answer_that_was_left_out_taught_nothing(data: Path) -> None:
    story = found(data, LEFT[:8])
    assert (story["examples"], story["trained"], story["judged"]) == ([], {}, [])
    assert "  coverage: not kept (over_budget)" in lineage.story(story)


def test_an_example_leads_back_to_its_answer_alone(data: Path) -> None:
    story = found(data, EXAMPLE)
    assert [r["response_id"] for r in story["responses"]] == [KEPT]
    assert [p["prompt_id"] for p in story["prompts"]] == [PROMPT]


def test_a_prompt_has_all_its_answers_and_a_benchmark_item_its_judgements(data: Path) -> None:
    assert {r["response_id"] for r in found(data, PROMPT)["responses"]} == {KEPT, LEFT, STRANGE}
    assert {e["model"]: e["metric"] for e in found(data, OTHER)["evals"]} == {"kd": 1.0, "random_sft": 0.0}


def test_a_prompt_that_was_made_says_by_what_and_of_what(data: Path) -> None:
    """Its parents are prompts or answers, and each can be asked about in turn."""
    for child, operator, parents in (
        (CHILD, "expansion.instruct", [PROMPT, OTHER]), (GRANDCHILD, "written.prompts", [KEPT])
    ):  # fmt: skip
        story = found(data, child)
        assert f"  made by {operator} of {', '.join(parents)}" in lineage.story(story)
        assert [found(data, parent)["id"] for parent in story["prompts"][0]["parent_ids"]] == parents
    assert not any("made by" in line for line in lineage.story(found(data, PROMPT)))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("bb1", "nothing is called"),
        ("kdd", "did you mean kd?"),
        ("00000000", "begins with 00000000"),
        ("coverage", "pack@coverage or select@coverage"),
        ("aa' or 1=1", "nothing is called"),
    ],
)
def test_a_wrong_name_says_what_there_is(data: Path, wanted: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        lineage.find(data, wanted)


def test_a_beginning_of_two_ids_is_refused(data: Path, tmp_path: Path) -> None:
    twin = tmp_path / "data"
    (twin / "plan").parent.mkdir(exist_ok=True)
    (twin / "plan").symlink_to(data / "plan")
    rows = [response("ee" * 15 + "00", PROMPT), response("ee" * 15 + "11", PROMPT)]
    parquet.write(RESPONSES, twin / "responses/train/teacher", 1, [RESPONSES.rows(rows)])
    with pytest.raises(Refused, match="beginning of several ids"):
        lineage.find(twin, "eeeeee")


def test_hostile_text_is_quoted_and_inert(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(data.parent)
    assert main(["lineage", PROMPT]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert len([line for line in printed.splitlines() if line.startswith("response ")]) == 3
    assert main(["lineage", PROMPT, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompts"][0]["messages"][0]["content"] == HOSTILE


def test_it_needs_something_to_tell_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lineage"]) == 1
    assert "needs an instance or the id of a row, or --withdraw and what is to go" in capsys.readouterr().err
