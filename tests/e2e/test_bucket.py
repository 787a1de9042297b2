"""The default graph between clones that have nothing but git and a bucket in common, and caches that are links."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bucket import LACKS, Bucket, serving
from tests.e2e.brought import stillhouse
from tests.e2e.conftest import Workspace

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(LACKS is not None, reason=f"there is no {LACKS} here: `make test-servers` installs it"),
]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with serving(tmp_path_factory.mktemp("bucket")) as running:
        yield running


def clone(of: Workspace, place: Path, links: str) -> Workspace:
    of.run("git", "clone", "-q", str(of.root), str(place))
    there = Workspace(place, of.env)
    there.dvc("config", "--local", "cache.type", links)
    return there


def spoilt(workspace: Workspace) -> list[str]:
    """Objects in DVC's cache that are not what their names say, because somebody wrote through a link."""
    cache = workspace.root / ".dvc" / "cache" / "files" / "md5"
    files = [file for file in cache.rglob("*") if file.is_file()]
    assert len(files) > 100
    return [
        file.name
        for file in files
        if hashlib.md5(file.read_bytes()).hexdigest() != (file.parent.name + file.name).removesuffix(".dir")
    ]


def test_a_second_clone_runs_nothing_and_a_third_plan_and_report(
    done: Workspace, bucket: Bucket, tmp_path: Path
) -> None:
    done.env = {**done.env, **bucket.env()}
    assert "36 runs" not in stillhouse(done, "share", bucket.url)
    done.run("git", "add", "-A")
    done.run("git", "commit", "-qm", "shared")

    two = clone(done, tmp_path / "two", "hardlink")
    said = stillhouse(two, "take")
    assert "what dvc.lock names is in place" in said and "answers learnt from" in said
    asked = len(list((done.data / "responses").rglob("part-*")))
    assert f"learnt from {asked} files of responses" in said and " 0 answers learnt" not in said
    assert two.repro() == []
    # Our writers put a new folder in place of the old: what is linked is never written to.
    two.edit(lambda params: params["select"]["random"].update(budget_tokens=900))
    assert {"select@random", "train@random_sft", "report"} <= set(two.repro())
    assert spoilt(two) == [] and two.repro() == []

    three = clone(done, tmp_path / "three", "symlink")
    (three.root / "dvc.lock").unlink()
    # Of what persists while it is made, DVC keeps no run.
    assert three.repro("--pull") == ["plan", "report"]
    assert three.hashes() == done.hashes() and spoilt(three) == []
    assert [part.is_symlink() for part in (three.data / "responses" / "train" / "teacher").glob("part-*")] == [True] * 3
