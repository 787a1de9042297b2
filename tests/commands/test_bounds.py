"""What `tidy` bounds: the graph as it is and what was paid for stay, of the rest the oldest goes first."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path

import pytest

from pipeline.commands import bounds, tidy
from pipeline.commands.stored import Stored, locked
from pipeline.core.stage import Plan
from pipeline.memo.memo import Memo
from pipeline.tables.parquet import walk
from tests.commands.test_diff import AFTER, BEFORE, Made

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Three commits: the first is the oldest, and has what the others have not."""
    made = Made(tmp_path / "repo")
    scores = "scores/responses/train/agreement"
    made.commit("first", BEFORE)
    made.commit("second", {**AFTER, scores: (AFTER[scores][0], AFTER[scores][1][:2])})
    made.commit("third", AFTER)
    for age, name in enumerate(("third", "second", "first")):
        for outs in locked(made.root, name).values():
            for path, md5 in outs.items():
                found = Stored(made.root).files(path, md5)
                assert found is not None
                for file in (*found.values(), made.cache / md5[:2] / md5[2:]):
                    if file.is_relative_to(made.cache):
                        os.utime(file, (1e9 - age * 1000, 1e9 - age * 1000))
    return made


def held(made: Made, name: str) -> bool:
    """Whether the tables of a commit are all there."""
    stored = Stored(made.root)
    return all(stored.files(path, md5) is not None for o in locked(made.root, name).values() for path, md5 in o.items())


def size(made: Made) -> int:
    return sum(file.stat().st_size for file in walk(made.cache))


def test_the_oldest_that_the_graph_does_not_name_goes_first(made: Made) -> None:
    for path in walk(made.root / "data"):
        path.unlink()
    before = size(made)
    assert list(bounds.cache(made.root, before)) == ["DVC's cache: 0 objects of earlier runs removed, 0.0 MB"]
    list(bounds.cache(made.root, before - 1))
    assert size(made) < before and not held(made, "first") and held(made, "second") and held(made, "third")
    *_, last = bounds.cache(made.root, 0)
    assert last.endswith("is the graph as it is")
    assert held(made, "third") and not held(made, "second")


def test_the_memo_forgets_the_oldest_that_can_be_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memo = Memo(tmp_path)
    now = [1e9]
    monkeypatch.setattr("time.time", lambda: now[0])
    memo.put({"paid": {"content": "x" * 100_000}}, paid=True)
    memo.put({"unknown": {"content": "x" * 100_000}})
    for i in range(20):
        now[0] += 1
        memo.put({f"free {i}": {"content": "x" * 100_000}}, paid=False)
    list(bounds.memo(memo, 1_500_000))
    left = memo.get(["paid", "unknown", *(f"free {i}" for i in range(20))]).keys()
    assert {"paid", "unknown", "free 19"} <= left and "free 0" not in left
    assert 1_200_000 < memo.stats().bytes <= 1_500_000
    said = list(bounds.memo(memo, 1000))
    assert memo.get(["paid", "unknown", "free 19"]).keys() == {"paid", "unknown"}
    assert "was paid for, or may have been" in said[-1]


def test_checkpoints_of_what_is_done_or_gone_go(tmp_path: Path) -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.stage, self.name, self.label = "train", name, f"train@{name}"

    plan = Plan(settings=None, instances={name: Named(name) for name in ("done", "cut_short")})  # type: ignore[arg-type]
    for name in ("done", "cut_short", "renamed"):
        (tmp_path / ".checkpoints" / name / "a").mkdir(parents=True)
        (tmp_path / ".checkpoints" / name / "a" / "parts.safetensors").write_bytes(b"x" * 1000)
    assert list(bounds.checkpoints(plan, tmp_path, {"train@done"})) == ["checkpoints: 2 trainings, 0.0 MB removed"]
    assert [folder.name for folder in (tmp_path / ".checkpoints").iterdir()] == ["cut_short"]


def test_parts_of_instances_that_are_gone_go(tmp_path: Path) -> None:
    class Named:
        stage, name = "score", "here"

    for name in ("score-here", "score-gone"):
        (tmp_path / ".parts" / name / "0f").mkdir(parents=True)
        (tmp_path / ".parts" / name / "0f" / "part-00000.parquet").write_bytes(b"x" * 1_000_000)
    plan = Plan(settings=None, instances={"score@here": Named()})  # type: ignore[arg-type, dict-item]
    assert list(bounds.parts(plan, tmp_path)) == ["parts of 1 instances that are gone: 1.0 MB removed"]
    assert [folder.name for folder in (tmp_path / ".parts").iterdir()] == ["score-here"]
    assert list(bounds.parts(plan, tmp_path)) == []


def test_a_size_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    command = ArgumentParser()
    tidy.arguments(command)
    assert command.parse_args(["--cache", "2GB", "--memo", "1000"]).cache == 2_000_000_000
    with pytest.raises(SystemExit):
        command.parse_args(["--cache", "plenty"])
    assert "invalid size value: 'plenty'" in capsys.readouterr().err
