"""The page on own data names the shapes that the field's files have; every entry of it reads such a file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.contracts import PROMPTS
from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance
from pipeline.stages.ingest import Params
from pipeline.tables.parquet import Scan

PAGE = Path(__file__).parents[2] / "docs" / "own-data.md"
[BLOCK] = [b for b in re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.S) if "gsm8k:" in b]
ENTRIES = yaml.safe_load(BLOCK)["ingest"]

GSM8K = [
    {"question": "Natalia sold 48 clips in April and half as many in May. How many in all?",
     "answer": "In May she sold 48/2 = <<48/2=24>>24 clips.\nTogether 48+24 = <<48+24=72>>72.\n#### 72"},
    {"question": "A farm sells 1,000 eggs a day for two days and 125 more. How many?", "answer": "In all\n#### 2,125"},
    {"question": "From 5 he takes 8. What is left?", "answer": "5-8 = -3\n#### -3"},
]  # fmt: skip
BBH = [
    {"input": "Which is a fruit?\nOptions:\n(A) stone\n(B) apple\n(C) chair\n(D) rain", "target": "(B)"},
    {"input": "Which is wet?\nOptions:\n(A) stone\n(B) apple\n(C) chair\n(D) rain", "target": "(D)"},
]
SHAREGPT = [
    {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
    {"conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "one?"},
                       {"from": "gpt", "value": "1"}, {"from": "human", "value": "two?"},
                       {"from": "gpt", "value": "2"}]},
    {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
]  # fmt: skip
MMLU = [
    {"question": "What is 2 + 2?", "A": "3", "B": "4", "C": "5", "D": "NA", "answer": "B", "subject": "arithmetic"},
    {"question": "Code of Namibia, in two letters?", "A": "NA", "B": "NB", "C": "NC", "D": "ND", "answer": "A",
     "subject": "geography"},
    {"question": "Who said \"so, ok\"?", "A": "x, y", "B": "z", "C": "07", "D": "1", "answer": "C", "subject": "x"},
    {"question": "Nobody knows?", "A": "a", "B": "b", "C": "c", "D": "d", "answer": "E", "subject": "other"},
    {"question": "Last?", "A": "a", "B": "b", "C": "c", "D": "d", "answer": "D", "subject": "other"},
]  # fmt: skip
HUB = [{"question": f"Which is {i}?", "choices": ["0", "1", "2", "3"], "answer": i} for i in range(4)]
MATH = [
    {"data": {"problem": "What is $\\frac{1}{2} + \\frac{1}{4}$?", "type": "Algebra",
              "solution": "We add: $\\boxed{\\frac{3}{4}}$."}, "level": "Level 1"},
    {"data": {"problem": "Simplify $\\sqrt{12}$.", "type": "Prealgebra",
              "solution": "It is $2\\sqrt{3}$, so $\\boxed{2\\sqrt{3}}$."}, "level": "Level 3"},
]  # fmt: skip


def lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user, with a file of each shape."""
    monkeypatch.chdir(tmp_path)
    folder = Path("data/own")
    (folder / "sharegpt").mkdir(parents=True)
    (folder / "gsm8k.jsonl.gz").write_bytes(gzip.compress(lines(GSM8K)))
    (folder / "bbh.json").write_text(json.dumps(BBH), "utf-8")
    for i, row in enumerate(SHAREGPT):
        (folder / "sharegpt" / f"{i}.jsonl").write_bytes(lines([row]))
    text = io.StringIO()
    writer = csv.DictWriter(text, MMLU[0])
    writer.writeheader()
    writer.writerows(MMLU)
    (folder / "mmlu.csv.gz").write_bytes(gzip.compress(text.getvalue().encode()))
    pq.write_table(pa.Table.from_pylist(HUB), folder / "mmlu.parquet")
    (folder / "math.jsonl").write_bytes(lines(MATH))
    return folder


def read(name: str) -> tuple[list[dict], dict]:
    """The prompts that the page's entry gives, in the order of their places, and what it noted."""
    params = Params.model_validate(ENTRIES[name])
    record = run_instance(
        Instance("ingest", name, params, {}, params.output(name), ""), RunSettings(), Path("data"), Path()
    )
    rows = Scan(PROMPTS, (Path("data") / params.output(name),)).pylist()
    return sorted(rows, key=lambda row: row["source"]), record["notes"]


@pytest.mark.parametrize(
    ("name", "references", "domains"),
    [
        ("gsm8k", ["72", "2125", "-3"], {"gsm8k"}),
        ("bbh", ["B", "D"], {"bbh"}),
        ("sharegpt", ["hello", "2"], {"sharegpt"}),
        ("mmlu", ["B", "A", "C", "D"], {"arithmetic", "geography", "other", "x"}),
        ("mmlu_hub", ["A", "B", "C", "D"], {"mmlu_hub"}),
        ("math", [r"\frac{3}{4}", r"2\sqrt{3}"], {"Algebra", "Prealgebra"}),
    ],
)
def test_an_entry_of_the_page_reads_its_shape(own: Path, name: str, references: list[str], domains: set[str]) -> None:
    rows, notes = read(name)
    assert [row["reference"] for row in rows] == references
    assert {row["domain"] for row in rows} == domains
    assert notes.get("solutions_judged_wrong", {"n": 0})["n"] == 0


def test_what_the_page_says_of_rows(own: Path) -> None:
    rows, notes = read("mmlu")
    assert rows[1]["messages"][-1]["content"] == "Code of Namibia, in two letters?\nA. NA\nB. NB\nC. NC\nD. ND"
    assert (notes["set_aside"]["n"], notes["set_aside"]["of"]) == (1, 5)
    rows, notes = read("sharegpt")
    assert notes["repeated"]["n"] == 1
    assert [m["role"] for m in rows[1]["messages"]] == ["system", "user", "assistant", "user"]
    rows, _ = read("bbh")
    assert rows[0]["messages"][0] == {"role": "system", "content": "Answer with one letter."}
    rows, _ = read("gsm8k")
    assert rows[0]["solution"].endswith("#### 72")
