"""Files as people have them: text stays text, and what cannot be read is said with file and row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.methods import find
from pipeline.errors import Refused
from pipeline.kinds.source import BadRow
from pipeline.sources.files import files_of
from pipeline.text.intake import Intake


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(use: str, **arguments: object) -> tuple[list[dict], list[BadRow]]:
    """The good rows' columns, without what is not there, and the bad rows."""
    found = list(find("source", use).factory(**arguments))
    good = [{k: v for k, v in row.columns.items() if v is not None} for row in found if not isinstance(row, BadRow)]
    return good, [row for row in found if isinstance(row, BadRow)]


def write(name: str, content: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8")
    Path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return name


A, B = {"prompt": "a", "n": 1}, {"prompt": "b", "more": {"x": [1]}}
LINES = json.dumps(A) + "\n" + json.dumps(B) + "\n"


@pytest.mark.parametrize(
    ("use", "name", "content", "rows"),
    [
        ("files.jsonl", "r.jsonl", LINES, [A, B]),
        ("files.jsonl", "r.jsonl.gz", LINES, [A, B]),
        ("files.jsonl", "r.jsonl", "\ufeff" + LINES, [A, B]),
        ("files.jsonl", "r.jsonl", "", []),
        ("files.json_array", "r.json", json.dumps([A, B]), [A, B]),
        ("files.json_array", "r.json.gz", json.dumps([A, B]), [A, B]),
        ("files.json_array", "r.json", "[]", []),
        ("files.csv", "r.csv", "prompt,reference\ncode of Namibia?,NA\nleft?,None\nagent?,007\n",
         [{"prompt": "code of Namibia?", "reference": "NA"}, {"prompt": "left?", "reference": "None"},
          {"prompt": "agent?", "reference": "007"}]),
        ("files.csv", "r.csv.gz", "a,b\n1.0,true\n", [{"a": "1.0", "b": "true"}]),
        ("files.csv", "r.csv", "\ufeffa,b\r\n1e5,\r\n", [{"a": "1e5"}]),
        ("files.csv", "r.csv", 'a,b\n"two\nlines","say ""hi"""\n', [{"a": "two\nlines", "b": 'say "hi"'}]),
        ("files.csv", "r.csv", "", []),
        ("files.csv", "r.csv", "a\n2024-01-01\nNaN\nnull\n", [{"a": "2024-01-01"}, {"a": "NaN"}, {"a": "null"}]),
    ],
)  # fmt: skip
def test_rows_are_read_as_they_stand(use: str, name: str, content: str, rows: list[dict]) -> None:
    assert read(use, path=write(name, content)) == (rows, [])


def test_several_files_and_patterns() -> None:
    for i, name in enumerate(("b/2.jsonl", "b/1.jsonl", "c.jsonl")):
        write(name, json.dumps({"prompt": str(i)}) + "\n")
    order = lambda path: [row["prompt"] for row in read("files.jsonl", path=path)[0]]  # noqa: E731
    assert order("b/*.jsonl") == ["1", "0"]
    assert order(["c.jsonl", "b/?.jsonl"]) == ["2", "1", "0"]
    assert order("**/*.jsonl") == ["1", "0", "2"]
    assert files_of("none/*.jsonl") == ["none/*.jsonl"]
    assert files_of(str(Path("b").absolute() / "*.jsonl")) == [str(Path("b").absolute() / f"{i}.jsonl") for i in (1, 2)]


@pytest.mark.parametrize(
    ("use", "content", "said"),
    [
        ("files.json_array", '{"prompt": "a"}', "holds dict and no array"),
        ("files.json_array", '[{"prompt": "a"}', "is not JSON"),
        ("files.csv", "a,a\n1,2\n", "the column 'a' stands twice"),
        ("files.csv", 'a,b\n"1,2\n', "cannot be read as values"),
        ("files.csv", "prompt;reference\na;b\n", r'is one column; write `separator: ";"`'),
        ("files.csv", "prompt\treference\na\tb\n", r'is one column; write `separator: "\\t"`'),
        ("files.csv", "prompt|reference\na|b\n", r'is one column; write `separator: "\|"`'),
        ("files.parquet", "PAR1", "cannot be read as Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(use: str, content: str, said: str) -> None:
    with pytest.raises(Refused, match=said) as error:
        read(use, path=write("bad", content))
    assert "bad" in str(error.value)


@pytest.mark.parametrize(
    ("use", "content", "place"),
    [
        ("files.csv", "a,b\n1,2\n3\n", "bad:3"),
        ("files.csv", "a,b\n1,2,3\n", "bad:2"),
        ("files.json_array", '[{"a": 1}, 7]', "bad:2"),
        ("files.jsonl", '{"a": 1}\n{"a"\n', "bad:2"),
        ("files.jsonl", '{"a": 1}\n\n[1]\n', "bad:3"),
    ],
)
def test_a_bad_row_is_named(use: str, content: str, place: str) -> None:
    good, bad = read(use, path=write("bad", content))
    assert len(good) <= 1 and [row.source for row in bad] == [place]


def line(row: object) -> str:
    return json.dumps(row) + "\n"


FOLDERS = {
    "a null in one file, text in the other": (
        {"train-1.jsonl": line({"prompt": "a", "system": None}), "train-2.jsonl": line({"prompt": "b", "system": "s"})},
        [{"prompt": "a"}, {"prompt": "b", "system": "s"}],
    ),
    "a column in one file only": (
        {"train-1.jsonl": line({"prompt": "a"}), "train-2.jsonl": line({"prompt": "b", "id": 7})},
        [{"prompt": "a"}, {"prompt": "b", "id": 7}],
    ),
    "an extra field of a struct": (
        {"train-1.jsonl": line({"m": {"x": 1}}), "train-2.jsonl": line({"m": {"x": 1, "y": "2"}})},
        [{"m": {"x": 1}}, {"m": {"x": 1, "y": "2"}}],
    ),
    "other types": (
        {"train-1.jsonl": line({"reference": 1}), "train-2.jsonl": line({"reference": "one"})},
        [{"reference": 1}, {"reference": "one"}],
    ),
    "an empty file": (
        {"train-1.jsonl": "", "train-2.jsonl": line({"prompt": "b"})},
        [{"prompt": "b"}],
    ),
    "csv as text": (
        {"train.csv": "prompt,reference\na,NA\nb,None\nc,007\n"},
        [{"prompt": "a", "reference": "NA"}, {"prompt": "b", "reference": "None"}, {"prompt": "c", "reference": "007"}],
    ),
    "tabs": ({"train.tsv": "prompt\treference\na\t1.0\n"}, [{"prompt": "a", "reference": "1.0"}]),
    "an array": ({"train.json": json.dumps([{"prompt": "a"}, {"prompt": "b"}])}, [{"prompt": "a"}, {"prompt": "b"}]),
    "lines in a .json": ({"train.json": line({"prompt": "a"})}, [{"prompt": "a"}]),
    "packed": ({"train.jsonl.gz": line({"prompt": "a"})}, [{"prompt": "a"}]),
    "a split by its folder": (
        {"data/train/x.jsonl": line({"prompt": "a"}), "data/test/x.jsonl": line({"prompt": "t"})},
        [{"prompt": "a"}],
    ),
    "names that say nothing": ({"rows.jsonl": line({"prompt": "a"})}, [{"prompt": "a"}]),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_of_data_files(kind: str) -> None:
    contents, rows = FOLDERS[kind]
    for name, content in contents.items():
        write(f"set/{name}", content)
    assert read("hub.datasets", path="set") == (rows, [])


def test_a_folder_with_a_broken_line_names_it() -> None:
    write("set/train-1.jsonl", line({"prompt": "a"}) + '{"prompt": \n')
    good, bad = read("hub.datasets", path="set")
    assert good == [{"prompt": "a"}] and [row.source for row in bad] == ["set/train-1.jsonl:2"]


@pytest.mark.parametrize(
    ("contents", "said"),
    [({}, "no data file"), ({"test.jsonl": line({"prompt": "t"})}, "no split 'train'; it has test")],
)
def test_a_folder_without_the_split_is_refused(contents: dict[str, str], said: str) -> None:
    Path("set").mkdir()
    for name, content in contents.items():
        write(f"set/{name}", content)
    with pytest.raises(Refused, match=said):
        read("hub.datasets", path="set")


def test_what_a_dataset_was_saved_as() -> None:
    datasets.Dataset.from_list([A]).save_to_disk("saved")
    assert read("hub.datasets", path="saved")[0] == [A]
    datasets.DatasetDict({"train": datasets.Dataset.from_list([A])}).save_to_disk("both")
    assert read("hub.datasets", path="both")[0] == [A]


TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "4"}]


@pytest.mark.parametrize(
    ("row", "how", "prompt", "reference", "solution"),
    [
        ({"messages": [{"role": "user", "content": "a", "from": None, "value": None}]}, {}, "a", None, None),
        ({"messages": [{"role": None, "content": None, "from": "human", "value": "b"}]}, {}, "b", None, None),
        ({"messages": [], "prompt": "a"}, {}, "a", None, None),
        ({"conversations": [], "messages": None, "instruction": "a", "input": None}, {}, "a", None, None),
        ({"prompt": "a", "history": [], "reference": 42.0}, {}, "a", "42", None),
        ({"prompt": "a", "reference": 0.5}, {}, "a", "0.5", None),
        ({"data": {"question": "q"}, "out": {"final": 3}},
         {"columns": {"prompt": "data.question", "reference": "out.final"}}, "q", "3", None),
        ({"q": "which?", "choices": ["x", "y"], "reference": "A"}, {"template": "{q}\nA. {choices.0}\nB. {choices.1}"},
         "which?\nA. x\nB. y", "A", None),
        ({"messages": TURNS}, {}, "a", None, "4"),
        ({"messages": TURNS}, {"last_turn": "reference"}, "a", "4", None),
        ({"prompt": "a", "completion": "4", "reference": "5"}, {"last_turn": "reference"}, "a", "5", "4"),
        ({"prompt": "old", "passage": "p", "n": 2.0}, {"template": "{passage} {n}"}, "p 2", None, None),
    ],
)  # fmt: skip
def test_rows_of_many_shapes(row: dict, how: dict, prompt: str, reference: str | None, solution: str | None) -> None:
    from pipeline.kinds.source import GivenRow

    given = {"columns": {}, **how}
    made = Intake(domain="d", verifier=None, system=None, max_prompt_chars=1000, **given).read(GivenRow("f:1", row))
    assert isinstance(made, dict), made
    assert (made["messages"][-1]["content"], made["reference"], made["solution"]) == (prompt, reference, solution)


def test_null_filled_turns_of_parquet() -> None:
    turn = pa.array([
        [{"role": "user", "content": "a", "from": None, "value": None}],
        [{"role": None, "content": None, "from": "human", "value": "b"}],
    ])  # fmt: skip
    pq.write_table(pa.table({"messages": turn}), "turns.parquet")
    intake = Intake(columns={}, domain="d", verifier=None, system=None, max_prompt_chars=1000)
    made = [intake.read(row) for row in find("source", "files.parquet").factory(path="turns.parquet")]
    assert [row["messages"][0]["content"] for row in made] == ["a", "b"]
