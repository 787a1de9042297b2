"""What of the user's files DVC would not see change is refused, with what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.workspace import WATCHED, unseen


@pytest.fixture(autouse=True)
def _tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files inside and outside, and links of both kinds."""
    monkeypatch.chdir(tmp_path)
    for file in ("mine/rows.jsonl", "data/own/rows.jsonl", "data/own/model/w", "elsewhere/rows.jsonl", "9 lives.csv"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text("{}", "utf-8")
    Path("data/own/link").symlink_to("../../elsewhere")
    Path("data/own/one.jsonl").symlink_to("../../elsewhere/rows.jsonl")
    Path("data/own/model/inner").symlink_to("../../../elsewhere")
    Path("linked").symlink_to("elsewhere")


SEEN = ("data/own/rows.jsonl", "data/own", "data/own/one.jsonl", "./data/own/rows.jsonl", "mine/../data/own/rows.jsonl")


@pytest.mark.parametrize("path", [path for path in SEEN if path != "data/own"])
def test_what_is_in_a_watched_folder_is_seen(path: str) -> None:
    assert unseen(path, WATCHED) is None
    assert unseen(str(Path(path).absolute()), WATCHED) is None


@pytest.mark.parametrize(
    ("path", "said", "watch"),
    [
        ("mine/rows.jsonl", "nothing watches mine/rows.jsonl", "rows"),
        ("mine", "nothing watches mine", "mine"),
        ("data/own/../../mine/rows.jsonl", "nothing watches", "rows"),
        ("9 lives.csv", "nothing watches 9 lives.csv", "lives"),
        ("linked/rows.jsonl", "nothing watches linked/rows.jsonl", "rows"),
        ("data/own/link", "data/own/link is a link to a folder", "link"),
        ("data/own/link/rows.jsonl", "data/own/link is a link to a folder", "rows"),
    ],
)
def test_what_is_not_is_refused_with_what_to_add(path: str, said: str, watch: str) -> None:
    found = unseen(path, WATCHED)
    assert found is not None and found.startswith(said)
    assert f"`watch: {{{watch}: {path}}}`" in found
    assert unseen(path, (*WATCHED, path)) is None


def test_a_link_inside_of_what_is_watched_is_refused() -> None:
    found = unseen("data/own/model", WATCHED)
    assert found is not None and "data/own/model/inner is a link to a folder" in found


def test_what_is_missing_is_told_first() -> None:
    found = unseen("data/own/none.jsonl", WATCHED)
    assert found == "data/own/none.jsonl is missing; a path is relative to the folder of params.yaml"
