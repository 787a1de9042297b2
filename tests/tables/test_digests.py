"""What is remembered of large files, and when it is forgotten."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from pipeline.tables import digests
from pipeline.tables.digests import LARGE, Digests
from pipeline.tables.parquet import digest, folder_digest


def old(file: Path, content: bytes) -> Path:
    """A file that was written an hour ago."""
    file.write_bytes(content)
    hour = file.stat().st_mtime - 3600
    os.utime(file, (hour, hour))
    return file


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read."""
    seen: list[Path] = []
    monkeypatch.setattr(digests, "digest", lambda file, algorithm: seen.append(file) or digest(file, algorithm))
    return seen


def test_what_did_not_change_is_read_once(tmp_path: Path, read: list[Path]) -> None:
    file, kept = old(tmp_path / "large", b"x" * LARGE), tmp_path / "kept" / "digests.json"
    first = Digests(kept).of(file)
    assert first == digest(file) == Digests(kept).of(file)
    assert Digests(kept).of(file, "md5", hashlib.md5) == hashlib.md5(b"x" * LARGE).hexdigest()
    assert Digests(kept).of(file) == first
    assert read == [file, file]


@pytest.mark.parametrize(
    "how", ["content and time", "length", "another file", "just written", "small", "half a record"]
)
def test_what_may_have_changed_is_read_again(tmp_path: Path, read: list[Path], how: str) -> None:
    size = 10 if how == "small" else LARGE
    file, kept = old(tmp_path / "file", b"x" * size), tmp_path / "digests.json"
    if how == "just written":
        file.touch()
    Digests(kept).of(file)
    if how == "content and time":
        file.write_bytes(b"y" * size)
    elif how == "length":
        old(file, b"x" * (size + 1))
    elif how == "another file":
        old(tmp_path / "new", b"z" * size).replace(file)
    elif how == "half a record":
        kept.write_text(kept.read_text("utf-8")[:20], "utf-8")
    assert Digests(kept).of(file) == digest(file)
    assert len(read) == 2


def test_a_folder_is_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "in").mkdir(parents=True)
    old(folder / "in" / "large", b"x" * LARGE)
    old(folder / "small", b"y")
    assert Digests(tmp_path / "kept.json").folder(folder) == folder_digest(folder)


def test_two_at_once_forget_nothing_of_each_other(tmp_path: Path, read: list[Path]) -> None:
    files = [old(tmp_path / name, b"x" * LARGE) for name in "ab"]
    both = [Digests(tmp_path / "kept.json") for _ in files]
    for one, file in zip(both, files, strict=True):
        one.of(file)
    assert all(Digests(tmp_path / "kept.json").of(file) == digest(file) for file in files)
    assert read == files


def test_what_is_remembered_of_a_folder_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, kept, written = tmp_path / "folder", tmp_path / "kept.json", list[Path]()
    folder.mkdir()
    for name in "abc":
        old(folder / name, b"x" * LARGE)
    write = Path.write_text
    monkeypatch.setattr(Path, "write_text", lambda path, *told: written.append(path) or write(path, *told))
    assert Digests(kept).folder(folder) == folder_digest(folder) == Digests(kept).folder(folder)
    assert len(written) == 1
