"""Prompts from procedures, files and datasets: what becomes a prompt, what is refused, and where it is named."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from pipeline.backends.recorded import solutions
from pipeline.contracts import PROMPTS
from pipeline.core.driver import run_instance
from pipeline.core.methods import find
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.errors import Refused
from pipeline.kinds.backend import GenerateRequest, Sampling
from pipeline.kinds.source import BadRow, GivenRow
from pipeline.kinds.verifier import answer_of, metric_of
from pipeline.sources import procedural
from pipeline.tables import ids, tensors
from pipeline.tables.parquet import Scan
from pipeline.text.intake import Intake, name_groups
from pipeline.text.procedures import DOMAINS
from tests.stages.ingesting import SETTINGS, asked, ingest, instance, jsonl


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tasks(**arguments: object) -> list[dict]:
    rows = list(procedural.tasks(**arguments))  # type: ignore[arg-type]
    return [dict(row.columns) for row in rows if isinstance(row, GivenRow)]


def test_tasks_are_distinct_and_dealt_evenly() -> None:
    rows = tasks(rows=480, seed=1)
    assert set(Counter((row["domain"], row["level"]) for row in rows).values()) == {20}
    assert len({row["messages"][0]["content"] for row in rows}) == 480
    assert rows == tasks(rows=480, seed=1)
    assert rows != tasks(rows=480, seed=2)


def test_weights_and_levels_deal_the_rows() -> None:
    rows = tasks(rows=30, seed=1, domains={"add": 2, "rev": 1}, levels=(1,))
    assert Counter((row["domain"], row["level"]) for row in rows) == {("add", 1): 20, ("rev", 1): 10}


@pytest.mark.parametrize(("section", "label"), [({}, "labeling"), ({"elicitation": "curation"}, "curation")])
def test_an_entry_says_what_answers_to_its_prompts_bring_out(section: dict[str, str], label: str) -> None:
    found = ingest(use="procedural.tasks", rows=3, seed=1, **section)
    assert {row["elicitation"] for row in found} == {label}


def test_slips_change_solutions_alone() -> None:
    clean, slipped = tasks(rows=400, seed=1), tasks(rows=400, seed=1, slip=0.5)
    assert [row["reference"] for row in clean] == [row["reference"] for row in slipped]
    assert 120 < sum(a["solution"] != b["solution"] for a, b in zip(clean, slipped, strict=True)) < 220


def test_easy_tasks_are_easy() -> None:
    rows = tasks(rows=210, seed=1, operands="easy")
    assert {row["domain"] for row in rows} == set(DOMAINS) - {"sort"}
    assert all(DOMAINS[row["domain"]].easy(row["messages"][0]["content"]) for row in rows)


def test_more_tasks_than_there_are_is_refused() -> None:
    with pytest.raises(Refused, match="logic at level 0 has only 128 different prompts"):
        tasks(rows=200, seed=1, domains={"logic": 1}, levels=(0,), operands="easy")


def test_every_shape_is_read() -> None:
    path = jsonl(
        {"prompt": "a"},
        {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "b"}], "completion": "B"},
        {"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "C"}]},
        {"conversations": [{"from": "human", "value": "d"}, {"from": "gpt", "value": "D"}]},
        {"instruction": "e", "input": "E", "output": "F", "history": [["g", "h"]], "system": "s"},
    )
    rows = ingest(use="files.jsonl", path=path)
    assert asked(rows) == ["a", "b", "c", "d", "e\nE"]
    assert {row["messages"][-1]["content"]: row["solution"] for row in rows} == {
        "a": None, "b": "B", "c": "C", "d": "D", "e\nE": "F",
    }  # fmt: skip
    assert [m["role"] for row in rows if row["solution"] == "F" for m in row["messages"]] == [
        "system", "user", "assistant", "user",
    ]  # fmt: skip


def test_columns_are_mapped_and_references_read() -> None:
    path = jsonl({"question": "What is 6 x 7?", "answer": "6*7=42 #### 42", "kind": "sums", "prompt": "unused"})
    columns = {"prompt": "question", "reference": "answer", "domain": "kind"}
    (row,) = ingest(use="files.jsonl", path=path, columns=columns, verifier="numeric.last", system="Be brief.")
    assert (row["domain"], row["reference"], row["source"]) == ("sums", "42", "rows.jsonl:1")
    assert [m["content"] for m in row["messages"]] == ["Be brief.", "What is 6 x 7?"]


# Verifier, reference, and a text that is wrong, although it holds a part of the reference; the row is refused, or its
# solution is right and the wrong text is not.
WHOLE = [
    ("symbolic.math", "2\\sqrt{3}", "$\\boxed{2\\sqrt{3}}$", "2"),
    ("symbolic.math", "2\\sqrt{3}", "$\\boxed{2\\sqrt{3}}$", "3"),
    ("symbolic.math", "\\left( 3, \\frac{\\pi}{2} \\right)", "$\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}$", "3"),
    ("symbolic.math", "-2,2", "$\\boxed{-2,2}$", "-2.2"),
    ("symbolic.math", "5!", "$\\boxed{5!}$", "5"),
    ("symbolic.math", "x \\ge 4", "$\\boxed{x \\ge 4}$", "4"),
    ("symbolic.math", "\\frac{\\sqrt{3}}{2}", "$\\boxed{\\frac{\\sqrt{3}}{2}}$", "\\frac{1}{2}"),
    ("symbolic.math", "(-\\infty, 4]", "$\\boxed{(-\\infty, 4]}$", "4"),
    ("symbolic.math", "3\\pi - 1", "$\\boxed{3\\pi - 1}$", "1"),
    ("symbolic.math", "x^2+", "\\boxed{x^2}", "2"),
    ("text.choice", "G", "The answer is (G).", "The answer is (A)."),
    ("text.choice", "c", "The answer is (C).", "The answer is (A)."),
    ("text.choice", "B, because it is blue", "The answer is (B).", "B, because it is blue"),
    ("text.choice {index_from: 0}", "2", "The answer is (C).", "2"),
    ("text.choice", "2", "The answer is (C).", "2"),
    ("numeric.last", "1/2", "1/2", "3/2"),
    ("numeric.last", "8:30", "8:30", "9:30"),
    ("numeric.last", "12 m^2", "It is 12 m².", "2"),
    ("numeric.last", "5-10", "5-10", "10"),
    ("numeric.last", "2 or 3", "3", "3"),
    ("numeric.last", "2024-01-15", "2024-01-15", "15"),
    ("numeric.last", "3x", "3x", "3"),
    ("text.line", "Paris\nor Rome", "Paris", "Paris"),
]


@pytest.mark.parametrize(("verifier", "reference", "right", "wrong"), WHOLE)
def test_a_reference_is_read_whole_or_refused(verifier: str, reference: str, right: str, wrong: str) -> None:
    [row] = taken({"prompt": "?", "reference": reference, "verifier": verifier})
    if isinstance(row, BadRow):
        assert row.why == f"{verifier} cannot read the reference as one whole answer"
    else:
        judged = [metric_of(verifier, answer_of(verifier, text), row["reference"]) for text in (right, wrong)]
        assert judged == [1, 0]


def test_a_reference_that_cannot_be_read_is_named() -> None:
    rows = [{"prompt": str(i), "reference": r} for i, r in enumerate((2, "(b)", "B, because it is blue", "K"))]
    with pytest.raises(Refused, match=r"3 x text\.choice cannot read the reference .*rows\.jsonl:1, .*:3, .*:4"):
        ingest(use="files.jsonl", path=jsonl(*rows), verifier="text.choice")


def test_a_verifier_takes_parameters() -> None:
    rows = [{"prompt": str(i), "reference": reference} for i, reference in enumerate((2, "0", "c", "(B)"))]
    judge = {"use": "text.choice", "choices": 4, "index_from": 0}
    found = ingest(use="files.jsonl", path=jsonl(*rows), verifier=judge)
    assert {row["messages"][0]["content"]: row["reference"] for row in found} == {
        "0": "C",
        "1": "A",
        "2": "C",
        "3": "B",
    }
    assert {row["verifier"] for row in found} == {"text.choice {choices: 4, index_from: 0}"}
    with pytest.raises(ValidationError, match=r"has no parameter 'letters'; it takes choices, index_from"):
        instance(use="files.jsonl", path="rows.jsonl", verifier={"use": "text.choice", "letters": 4})


def test_what_a_verifier_makes_of_references_and_solutions_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": "a", "reference": "... #### 42", "solution": "#### 42"},
        {"prompt": "b", "reference": "1/2", "solution": "It is a half, or 50 of 100."},
        {"prompt": "c", "reference": "7", "solution": "so 7"},
        {"prompt": "d", "reference": "8"},
    ]
    record = run_instance(
        instance(use="files.jsonl", path=jsonl(*rows), verifier="numeric.last"), SETTINGS, Path("data"), Path()
    )
    assert record["notes"] == {
        "references_rewritten": {"n": 2, "of": 4, "at": ["rows.jsonl:1", "rows.jsonl:2"]},
        "solutions_judged_wrong": {"n": 1, "of": 3, "at": ["rows.jsonl:2"]},
    }
    said = "".join(capsys.readouterr())
    assert "2 of 4 references are kept as their verifier reads them: rows.jsonl:1, rows.jsonl:2" in said
    assert "1 of 3 solutions (33.3%) are not right by their own verifier and reference: rows.jsonl:2" in said


BAD = {
    "is not JSON": '{"prompt": ',
    "is not a JSON object": "[1]",
    "no prompt": {"text": "a"},
    "the prompt is empty": {"prompt": " "},
    "prompt must be a list of turns": {"prompt": 5},
    "the last turn": {"messages": [{"role": "system", "content": "a"}]},
    "has the role 'tool'": {"messages": [{"role": "tool", "content": "a"}]},
    "a content that is not text": {"messages": [{"role": "user", "content": ["a"]}]},
    "more than max_prompt_chars 50": {"prompt": "x" * 51},
    "not valid Unicode": {"prompt": "\ud800"},
    "the prompt is the same": {"prompt": "good"},
    "the id is the same": {"prompt": "another", "id": 1},
    "numeric.last cannot read the reference": {"prompt": "b", "reference": "none", "verifier": "numeric.last"},
    "did you mean text.marked": {"prompt": "c", "reference": "1", "verifier": "text.makred"},
    "level must be a whole number": {"prompt": "d", "level": 1.5},
    "domain must be text": {"prompt": "e", "domain": 3},
}


CALL = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
TURN = {"role": "user", "content": "Hi"}
# Conversations with tools, which are not carried: a part of each would be lost.
TOOLS: dict[str, tuple[dict, str]] = {
    "the case": (
        {"messages": [TURN, {"role": "assistant", "content": "", "tool_calls": [CALL]}], "tools": [CALL]},
        "tools",
    ),
    "a call alone": ({"messages": [TURN, {"role": "assistant", "content": "", "tool_calls": [CALL]}]}, "tool_calls"),
    "beside words": ({"messages": [TURN, {"role": "assistant", "content": "a", "tool_calls": [CALL]}]}, "tool_calls"),
    "without a content": (
        {"messages": [TURN, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
        "tool_calls",
    ),
    "an earlier turn": (
        {"messages": [TURN, {"role": "assistant", "content": "", "tool_calls": [CALL]}, TURN]},
        "tool_calls",
    ),
    "the older form": (
        {"messages": [TURN, {"role": "assistant", "content": "", "function_call": {"name": "f"}}]},
        "function_call",
    ),
    "as a text": ({"messages": [TURN, {"role": "assistant", "content": "", "tool_calls": "f()"}]}, "tool_calls"),
    "in a completion": (
        {"prompt": "a", "completion": [{"role": "assistant", "content": "", "tool_calls": [CALL]}]},
        "tool_calls",
    ),
    "in ShareGPT's shape": (
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "", "tool_calls": [CALL]}]},
        "tool_calls",
    ),
    "tools in hand": ({"messages": [TURN, {"role": "assistant", "content": "a"}], "tools": [CALL]}, "tools"),
    "functions in hand": ({"messages": [TURN], "functions": [{"name": "f"}]}, "functions"),
    "tools of a prompt": ({"prompt": "a", "tools": [CALL]}, "tools"),
    "the role tool": ({"messages": [TURN, {"role": "tool", "content": "1"}]}, "'tool'"),
    "the role function": ({"messages": [TURN, {"role": "function", "content": "1"}]}, "'function'"),
    "a part that calls": (
        {"messages": [TURN, {"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]}]},
        "tool_use",
    ),
    "a part with a result": (
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "1"}]}]},
        "tool_result",
    ),
}


@pytest.mark.parametrize("name", TOOLS)
def test_tools_are_refused_by_name(name: str) -> None:
    row, why = TOOLS[name]
    with pytest.raises(Refused, match=r"1 of 2 rows cannot be used") as refusal:
        ingest(use="files.jsonl", path=jsonl({"prompt": "good"}, row))
    assert why in str(refusal.value) and "rows.jsonl:2" in str(refusal.value)


def test_tools_that_are_none_are_no_matter() -> None:
    turns = [
        {**TURN, "tool_calls": None},
        {"role": "assistant", "content": "a", "tool_calls": [], "function_call": None},
    ]
    own = {"prompt": "b", "tools": "hammer", "functions": ["sin"]}
    rows = ingest(use="files.jsonl", path=jsonl({"messages": turns, "tools": []}, own))
    assert [row["solution"] for row in sorted(rows, key=lambda row: row["source"])] == ["a", None]


THOUGHT = "1 and 2 make 3"
INLINE = f"<think>\n{THOUGHT}\n</think>\n\n3"
ASSISTANT = {"role": "assistant", "content": "3"}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [TURN, {**ASSISTANT, "reasoning_content": THOUGHT}]},
        {"messages": [TURN, {**ASSISTANT, "reasoning": THOUGHT}]},
        {"messages": [TURN, {**ASSISTANT, "thinking": THOUGHT}]},
        {"messages": [TURN, {**ASSISTANT, "thinking": THOUGHT, "reasoning": None}]},
        {
            "messages": [
                TURN,
                {**ASSISTANT, "content": [{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": "3"}]},
            ]
        },
        {"messages": [TURN, {**ASSISTANT, "content": [{"type": "text", "text": "3"}], "reasoning": THOUGHT}]},
        {"messages": [TURN, {**ASSISTANT, "reasoning_content": [{"type": "text", "text": THOUGHT}]}]},
        {"messages": [TURN, {**ASSISTANT, "content": INLINE}]},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "3", "reasoning": THOUGHT}]},
        {"prompt": "Hi", "completion": [{**ASSISTANT, "reasoning_content": THOUGHT}]},
        {"prompt": "Hi", "completion": INLINE},
        {"prompt": "Hi", "solution": INLINE},
    ],
)
def test_the_thought_of_a_solution_comes_with_it(row: dict) -> None:
    """It is told from the answer again where the solution answers."""
    (made,) = ingest(use="files.jsonl", path=jsonl(row))
    assert made["solution"] == INLINE and made["messages"] == [TURN]
    request = GenerateRequest("r", "p", made["messages"], 0, 0, made["solution"])
    with solutions(folder=Path(), card={}, how=How(RunSettings(), Path(), "")) as backend:
        [answer] = backend.generate([request], Sampling(0.0, 1.0, 1))
    assert (answer.content, answer.reasoning) == ("3", THOUGHT)


def test_the_thought_of_an_earlier_turn_stays_with_it() -> None:
    turns = [
        TURN,
        {**ASSISTANT, "reasoning_content": THOUGHT},
        {"role": "user", "content": [{"type": "text", "text": "b"}]},
    ]
    (made,) = ingest(use="files.jsonl", path=jsonl({"messages": turns}))
    assert [m["content"] for m in made["messages"]] == ["Hi", INLINE, "b"]


@pytest.mark.parametrize("why", BAD)
def test_a_bad_row_is_named(why: str) -> None:
    path = jsonl({"prompt": "good", "id": 1}, BAD[why])
    with pytest.raises(Refused, match=r"1 of 2 rows cannot be used") as refusal:
        ingest(use="files.jsonl", path=path, max_prompt_chars=50)
    assert why in str(refusal.value)
    assert "rows.jsonl:2" in str(refusal.value)


def test_a_line_that_is_not_utf8_is_named() -> None:
    Path("rows.jsonl").write_bytes(b'{"prompt": "a"}\n{"prompt": "\xff"}\n')
    with pytest.raises(Refused, match=r"is not UTF-8 \(byte 12 is 0xff\): rows.jsonl:2"):
        ingest(use="files.jsonl", path="rows.jsonl")


def test_all_faults_are_told_at_once() -> None:
    path = jsonl(*({"prompt": ""} for _ in range(7)), "{")
    with pytest.raises(Refused, match=r"7 x the prompt is empty: .*rows.jsonl:5 and 2 more") as refusal:
        ingest(use="files.jsonl", path=path)
    assert "1 x is not JSON" in str(refusal.value)


def test_bad_rows_are_put_in_quarantine() -> None:
    path = jsonl({"prompt": "a"}, {"prompt": ""}, "{")
    given = instance(use="files.jsonl", path=path, on_bad_row="quarantine", max_bad_share=0.7)
    record = run_instance(given, SETTINGS, Path("data"), Path())
    assert record["rows"] == 1
    assert sum(record["notes"]["quarantined"].values()) == 2
    lines = Path("data/.quarantine/mine.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["rows.jsonl:2", "rows.jsonl:3"]


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_refused(content: str) -> None:
    Path("rows.jsonl").write_text(content, "utf-8")
    with pytest.raises(Refused, match="gave no prompt"):
        ingest(use="files.jsonl", path="rows.jsonl")


@pytest.mark.parametrize("use", ["files.jsonl", "files.parquet", "hub.datasets"])
def test_a_missing_file_is_refused(use: str) -> None:
    with pytest.raises(Refused, match="nowhere"):
        ingest(use=use, path="nowhere")


def test_parquet_is_read() -> None:
    pq.write_table(pa.table({"prompt": ["a", "b"], "level": [0, 1]}), "rows.parquet")
    assert asked(ingest(use="files.parquet", path="rows.parquet")) == ["a", "b"]


def test_a_broken_parquet_file_is_refused() -> None:
    Path("rows.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(Refused, match="cannot be read as Parquet"):
        ingest(use="files.parquet", path="rows.parquet")


def test_a_dataset_on_disk_is_read(here: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"prompt": ["a", "b"]}).save_to_disk(str(here / "saved"))
    assert asked(ingest(use="hub.datasets", path="saved")) == ["a", "b"]


def test_the_same_file_with_other_content_is_another_instance() -> None:
    before = instance(use="files.jsonl", path=jsonl({"prompt": "a"})).to_json()
    assert before == instance(use="files.jsonl", path="rows.jsonl").to_json()
    assert before != instance(use="files.jsonl", path=jsonl({"prompt": "b"})).to_json()


def test_a_split_never_parts_a_group() -> None:
    section = {"use": "procedural.tasks", "rows": 480, "seed": 1}
    sides = {
        take: {row["group"] for row in ingest(**section, split={"held_out": 0.25, "take": take})}
        for take in ("train", "held_out")
    }
    assert not sides["train"] & sides["held_out"]
    assert sides["train"] | sides["held_out"] == {row["group"] for row in ingest(**section)}
    assert 0.15 < len(sides["held_out"]) / 480 < 0.35


def test_wordings_of_one_prompt_share_a_group() -> None:
    path = jsonl({"prompt": "What is  it?"}, {"prompt": "WHAT IS IT?"}, {"prompt": "Another"})
    assert sorted(Counter(row["group"] for row in ingest(use="files.jsonl", path=path)).values()) == [1, 2]


def test_a_limit_takes_the_same_rows_in_any_order() -> None:
    rows = [{"prompt": str(i)} for i in range(50)]
    first = ingest(use="files.jsonl", path=jsonl(*rows), limit=10)
    assert first == sorted(first, key=lambda row: row["prompt_id"])
    again = ingest(use="files.jsonl", path=jsonl(*reversed(rows)), limit=10)
    assert asked(first) == asked(again)
    assert len(first) == 10


def test_a_row_lies_in_the_part_of_its_prompt() -> None:
    ingest(use="procedural.tasks", rows=48, seed=1, parts=3)
    scan = Scan(PROMPTS, (Path("data/prompts/train/mine"),))
    assert scan.parts == 3
    for part in range(3):
        assert {ids.part_of(row["prompt_id"], 3) for row in scan.at(part).pylist()} == {part}


def test_a_verifier_that_a_source_does_not_declare_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be part of no identity, so a later edit of it would re-run nothing."""
    monkeypatch.setitem(find("source", "procedural.tasks").traits, "verifiers", ("text.line",))
    with pytest.raises(Refused, match=r"procedural\.tasks gave rows with the verifier text\.marked, which it does not"):
        ingest(use="procedural.tasks", rows=80, seed=1)
    assert ingest(use="procedural.tasks", rows=80, seed=1, verifier="text.marked")


def test_an_unknown_verifier_names_the_nearest() -> None:
    with pytest.raises(ValidationError, match=r"did you mean text\.marked"):
        instance(use="procedural.tasks", rows=80, seed=1, verifier="text.makred")


def taken(*rows: dict) -> list[dict | BadRow]:
    intake = Intake({}, "d", None, None, 1000)
    return [intake.read(GivenRow(f"row {i}", row)) for i, row in enumerate(rows)]


def test_arrays_become_cells_with_or_without_words() -> None:
    image, mask = np.zeros((2, 2), np.uint8), np.ones(4, np.float32)
    Image.fromarray(image).save(drawn := io.BytesIO(), "png")
    png = drawn.getvalue()
    bare, asked, same, other, again = taken(
        {"inputs": {"image": image}, "truth": {"mask": mask}},
        {"inputs": {"image": image}, "prompt": "What is it?", "solution": "a square"},
        {"inputs": {"image": png}},
        {"inputs": {"image": image + 1}},
        {"inputs": {"image": image}},
    )  # fmt: skip
    assert bare["messages"] == [{"role": "user", "content": ""}]
    assert bare["inputs"] == tensors.cell({"image": image}) and bare["truth"] == tensors.cell({"mask": mask})
    assert asked["solution"] == "a square"
    assert [a["dtype"] for a in same["inputs"]] == ["png"]
    assert len({row["prompt_id"] for row in (bare, asked, same, other)}) == 4
    assert isinstance(again, BadRow) and "same as in an earlier row" in again.why
    back = pa.Table.from_batches([PROMPTS.rows([{**bare, "group": "g"}])]).to_pylist()[0]
    assert back["inputs"] == bare["inputs"]


def test_a_column_of_that_name_without_arrays_is_the_users_own() -> None:
    for theirs in ("a text", {"question": "2 + 2"}, [1, 2], {}):
        [row] = taken({"prompt": "hm", "inputs": theirs, "truth": theirs})
        assert (row["inputs"], row["truth"]) == (None, None)
        assert row["prompt_id"] == ids.prompt_id(row["messages"])
    mixed, objects = taken(
        {"prompt": "a", "inputs": {"image": np.zeros(1), "label": "x"}},
        {"prompt": "b", "inputs": {"image": np.array([{}], object)}},
    )  # fmt: skip
    assert isinstance(mixed, BadRow) and mixed.why == "inputs must be arrays, and 'label' is not one"
    assert isinstance(objects, BadRow) and "'image' holds Python objects" in objects.why


def test_items_without_words_are_each_a_group_of_their_own() -> None:
    rows = [
        row for row in taken(*({"inputs": {"x": np.array([i], np.int64)}} for i in range(5))) if isinstance(row, dict)
    ]
    name_groups(rows)
    assert len({row["group"] for row in rows}) == 5
    words = [row for row in taken({"prompt": "Say it."}, {"prompt": "say  it."}) if isinstance(row, dict)]
    name_groups(words)
    assert {row["group"] for row in words} == {ids.digest("group", "say it.")}
