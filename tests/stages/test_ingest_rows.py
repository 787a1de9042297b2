"""Rows that are bad, or said twice, or no rows: heard, counted, and stopped where they are too many."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.core.driver import run_instance
from pipeline.errors import Refused
from pipeline.stages import ingest as stage
from pipeline.tables import seen, sorting
from tests.stages.ingesting import SETTINGS, ingest, instance, jsonl


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_quarantine_is_heard(capsys: pytest.CaptureFixture[str]) -> None:
    """On the screen and in the record, with the share that stops."""
    path = jsonl(*({"prompt": f"a{i}"} for i in range(19)), {"prompt": ""})
    given = instance(use="files.jsonl", path=path, on_bad_row="quarantine")
    notes = run_instance(given, SETTINGS, Path("data"), Path())["notes"]
    assert notes["set_aside"] == {"n": 1, "of": 20, "at": ["rows.jsonl:20: the prompt is empty"]}
    assert "1 of 20 rows cannot be used and are set aside in" in capsys.readouterr().err


@pytest.mark.parametrize(("bad", "most", "stops"), [
    (1, None, False), (2, None, False), (3, None, True), (3, 0.15, False), (4, 0.15, True), (10, 0.5, False),
    (11, 0.5, True), (20, 1, False), (1, 0, True), (1, 0.05, False), (2, 0.05, True), (19, 0.9, True),
])  # fmt: skip
def test_the_share_that_stops(bad: int, most: float | None, stops: bool) -> None:
    path = jsonl(
        *({"prompt": f"a{i}" if i >= bad else ""} for i in range(20)), *([{"prompt": "z"}] if bad == 20 else [])
    )
    share = {} if most is None else {"max_bad_share": most}
    if stops:
        with pytest.raises(Refused, match=rf"{bad} of 20 rows cannot be used(.|\n)*raise `max_bad_share"):
            ingest(use="files.jsonl", path=path, on_bad_row="quarantine", **share)
    else:
        assert len(ingest(use="files.jsonl", path=path, on_bad_row="quarantine", **share)) == max(1, 20 - bad)


@pytest.mark.parametrize(("rows", "on_repeat", "kept", "said"), [
    ([("a", "1"), ("a", "1")], "refuse", None, "the prompt is the same as in an earlier row; `on_repeat: first`"),
    ([("a", "1"), ("a", "1")], "first", ["1"], ""),
    ([("a", "1"), ("a", "2")], "refuse", None, r"as in rows.jsonl:1, which has another reference \('1', not '2'\)"),
    ([("a", "1"), ("a", "2")], "first", None, "another reference"),
    ([("a", None), ("a", "2")], "first", None, "another reference"),
    ([("a", "1"), ("a", None)], "first", None, "another reference"),
    ([("a", None), ("a", None)], "first", [None], ""),
    ([("a", "1"), ("b", "1"), ("a", "1"), ("a", "1")], "first", ["1", "1"], ""),
    ([("a", "1"), ("A", "2")], "first", ["1", "2"], ""),
    ([("a", "1"), ("a ", "2")], "first", ["1", "2"], ""),
    ([("a", "1"), ("b", "2"), ("b", "3")], "refuse", None, "the same as in rows.jsonl:2"),
    ([("a", 1), ("a", 1.0)], "first", ["1"], ""),
])  # fmt: skip
def test_repeats(rows: list[tuple], on_repeat: str, kept: list | None, said: str) -> None:
    path = jsonl(*({"prompt": prompt, "reference": reference} for prompt, reference in rows))
    if kept is None:
        with pytest.raises(Refused, match=said):
            ingest(use="files.jsonl", path=path, on_repeat=on_repeat)
    else:
        found = ingest(use="files.jsonl", path=path, on_repeat=on_repeat)
        assert sorted(map(str, (row["reference"] for row in found))) == sorted(map(str, kept))


@pytest.mark.parametrize(("begin", "said"), [
    (b"PK\x03\x04\x14", "a ZIP archive"), (b"BZh91AY", "packed by bzip2"), (b"\xfd7zXZ\x00", "packed by xz"),
    (b"\x28\xb5\x2f\xfd\x04", "packed by zstd"), (b"PAR1\x15", "a Parquet file"), (b"ARROW1\x00\x00", "an Arrow file"),
    (b"SQLite format 3\x00", "a database"),
])  # fmt: skip
@pytest.mark.parametrize("use", ["files.jsonl", "files.json_array", "files.csv"])
def test_a_file_of_another_kind_is_no_rows(use: str, begin: bytes, said: str) -> None:
    Path("rows").write_bytes(begin + b"\n".join(b"line %d" % i for i in range(28)))
    with pytest.raises(Refused, match=said):
        ingest(use=use, path="rows")


def test_what_is_in_no_memory_by_now_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that come a few at a time, and what was seen on the disk, give what all of them at once do."""
    rows = [{"prompt": f"{i} ?", "id": i, "reference": "1"} for i in range(60)]
    again = [{"prompt": "7 ?", "reference": "1"}, {"prompt": "9 ?", "reference": "2"}, {"prompt": "x", "id": "3"}]
    section = {"use": "files.jsonl", "path": jsonl(*rows, *again), "on_repeat": "first", "on_bad_row": "quarantine"}
    halves = {"split": {"held_out": 0.5, "take": "train"}, "limit": 9}
    whole = ingest(**section), ingest(**section, **halves)
    monkeypatch.setattr(stage, "BATCH", 7)
    monkeypatch.setattr(seen, "FEW", 5)
    monkeypatch.setattr(sorting, "RUN_ROWS", 10)
    assert (ingest(**section), ingest(**section, **halves)) == whole
    assert [len(found) for found in whole] == [60, 9]
    told = [json.loads(line)["why"] for line in Path("data/.quarantine/mine.jsonl").read_text().splitlines()]
    assert told == [
        "the prompt is the same as in rows.jsonl:10, which has another reference ('1', not '2')",
        "the id is the same as in an earlier row",
    ]
    assert json.loads(Path("data/.runs/ingest/mine.json").read_text())["notes"]["repeated"]["n"] == 1
