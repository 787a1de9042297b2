"""Labels: what was said is there, whoever else writes and whatever ends a writer; the last word on a row counts."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.errors import Refused
from pipeline.tables import labels
from pipeline.tables.labels import Writer, labels_of
from pipeline.tables.rules import query

ROOT = Path(__file__).parents[2]
# Says labels without end, and of each that it has been said.
TIRELESS = """
import itertools, sys
from pathlib import Path
from pipeline.tables.labels import Writer
writer = Writer(Path(sys.argv[1]))
for number in itertools.count():
    writer.say(f"r{number}", "p", True, None)
    print(number, flush=True)
"""


def good(data: Path) -> dict[str, bool]:
    return {key: row["good"] for key, row in labels_of(data).items()}


def test_the_last_word_counts_whoever_said_it(tmp_path: Path) -> None:
    anna, ben = Writer(tmp_path), Writer(tmp_path)
    anna.say("r1", "p", True, "clear")
    ben.say("r1", "p", False, "wrong unit")
    anna.say("r2", "p", True, "")
    anna.say("r3", "p", True, None)
    ben.say("r3", "p", None, None)
    found = labels_of(tmp_path)
    assert {key: (row["good"], row["note"]) for key, row in found.items()} == {
        "r1": (False, "wrong unit"),
        "r2": (True, None),
    }
    rows = query(tmp_path, "SELECT response_id, instance FROM labels")
    assert rows.num_rows == 5 and set(rows["instance"].to_pylist()) == {anna.name, ben.name}


def test_what_is_withdrawn_has_no_label_and_gets_none_back_from_who_gave_it(tmp_path: Path) -> None:
    anna, ben = Writer(tmp_path), Writer(tmp_path)
    anna.say("r1", "withdrawn", False, "a note that quotes it")
    anna.say("r2", "kept", True, None)
    ben.say("r1", "withdrawn", True, None)
    assert labels.forget(tmp_path, {"withdrawn"}) == 2
    assert labels.forget(tmp_path, {"withdrawn"}) == 0
    anna.say("r3", "kept", True, None)
    assert good(tmp_path) == {"r2": True, "r3": True}
    assert query(tmp_path, "SELECT count(*) AS n FROM labels WHERE note IS NOT NULL").to_pylist() == [{"n": 0}]


def test_without_labels_there_are_none(tmp_path: Path) -> None:
    assert labels_of(tmp_path) == {}
    Writer(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    def write(name: str) -> None:
        writer = Writer(tmp_path)
        for number in range(20):
            writer.say(f"{name}{number}", "p", number % 2 == 0, None)

    both = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert good(tmp_path) == {f"{name}{number}": number % 2 == 0 for name in "ab" for number in range(20)}


def test_a_kill_loses_nothing_that_was_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TIRELESS, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [int(child.stdout.readline()) for _ in range(20)]
        child.kill()
        said += [int(line) for line in child.stdout.read().split()]
    assert good(tmp_path).keys() >= {f"r{number}" for number in said}


def test_what_ends_it_before_the_rename_leaves_the_labels_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(tmp_path)
    writer.say("r1", "p", True, None)

    def full(path: Path) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(labels, "_to_disk", full)
        with pytest.raises(OSError, match="no room"):
            writer.say("r2", "p", True, None)
    assert good(tmp_path) == {"r1": True}
    writer.say("r3", "p", False, None)
    assert good(tmp_path) == {"r1": True, "r3": False}


def test_a_broken_file_is_named_and_nobody_is_told_to_delete_it(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.say("r1", "p", True, None)
    (tmp_path / "labels" / writer.name / "part-00000.parquet").write_bytes(b"no")
    with pytest.raises(Refused, match=rf"labels/{writer.name} holds labels that cannot be read: restore it from git"):
        labels_of(tmp_path)
