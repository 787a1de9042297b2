"""Clones that share through a remote: what one made the others take, and a remote that fails loses nothing."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import fsspec
import pytest
from dvc.repo import Repo

from pipeline.commands import share, take
from pipeline.errors import Refused
from tests.bucket import LACKS, Bucket, serving
from tests.flows.conftest import make_repository

DVC_YAML = """
stages:
  first:
    cmd: cp given out/first; echo first >> ../ran
    deps: [given]
    outs: [out/first]
  second:
    cmd: mkdir -p out/second; cp out/first out/second/part-00000; echo b > out/second/part-00001; echo second >> ../ran
    deps: [out/first]
    outs: [out/second]
"""
# DVC's own.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
S3 = pytest.mark.skipif(LACKS is not None, reason=f"there is no {LACKS} here: `make test-servers` installs it")


@dataclass
class Clone:
    """A repository of two shell stages, and who works in it."""

    root: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def inside(self, env: Mapping[str, str]) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch, contextlib.chdir(self.root):
            for name, value in {**self.env, **env}.items():
                patch.setenv(name, value)
            # A file system that was opened as somebody else.
            for known in {type(fs) for fs in fsspec.spec.AbstractFileSystem._cache.values()}:
                known.clear_instance_cache()
            yield

    def call(self, verb: Callable[..., None], *given: str, **env: str) -> tuple[int, str]:
        """Exit code, and what was said."""
        said = io.StringIO()
        with self.inside(env), contextlib.redirect_stdout(said):
            try:
                verb(*given)
            except Refused as error:
                return error.exit_code, str(error)
        return 0, said.getvalue().strip()

    def share(self, remote: str = "", **env: str) -> tuple[int, str]:
        return self.call(share.run, remote, **env)

    def take(self, **env: str) -> tuple[int, str]:
        return self.call(take.run, **env)

    def repro(self, pull: bool = False) -> list[str]:
        """The stages whose commands ran."""
        log = self.root.parent / "ran"
        before = len(log.read_text("utf-8").split()) if log.exists() else 0
        with self.inside({}), Repo(".") as repo:
            repo.reproduce(pull=pull)
        return log.read_text("utf-8").split()[before:]

    def files(self) -> list[str]:
        """What lies in the tables."""
        return sorted(file.read_text("utf-8") for file in (self.root / "out").rglob("*") if file.is_file())

    def clone(self, name: str) -> Clone:
        git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
        there = self.root.parent / name
        for command in (["add", "-A"], ["commit", "-q", "--allow-empty", "-m", "all"], ["clone", "-q", ".", there]):
            subprocess.run([*git, *command], cwd=self.root, check=True)
        (there / "out").mkdir()
        return Clone(there, self.env)


def made(folder: Path, env: Mapping[str, str]) -> Clone:
    """A clone in which everything was made."""
    root = make_repository(folder / "one")
    (root / "params.yaml").unlink()
    (root / "given").write_text("a\n", "utf-8")
    (root / "dvc.yaml").write_text(DVC_YAML, "utf-8")
    clone = Clone(root, env)
    assert clone.repro() == ["first", "second"]
    return clone


@pytest.fixture
def here(tmp_path: Path) -> Clone:
    return made(tmp_path, {})


def test_clones_take_what_was_shared_and_run_nothing(here: Clone, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    code, said = here.share(str(remote))
    assert code == 0 and "commit .dvc/config" in said and said.endswith("3 files and 2 runs sent, all others are there")
    assert here.share() == (0, f"{remote}: 0 files and 0 runs sent, all others are there")
    two, three = here.clone("two"), here.clone("three")
    assert two.take()[1].startswith(f"{remote}: 3 files and 2 runs taken, and what dvc.lock names is in place")
    assert two.files() == here.files() and two.repro() == []
    (three.root / "dvc.lock").unlink()
    assert three.take()[1].endswith("2 runs taken. There is no dvc.lock here: `dvc repro --pull` takes what they made")
    assert three.repro(pull=True) == [] and three.files() == here.files()


@pytest.mark.parametrize("lost", ["files", "file of a folder"])
def test_a_remote_that_lost_files_is_told_of_and_filled_again(here: Clone, tmp_path: Path, lost: str) -> None:
    remote = tmp_path / "remote"
    here.share(str(remote))
    two = here.clone("two")
    if lost == "files":
        shutil.rmtree(remote / "files")
    else:
        [found] = [file for file in remote.rglob("files/**/*") if file.is_file() and file.read_text("utf-8") == "b\n"]
        found.unlink()
    code, said = two.take()
    assert code == 75 and "lacks files of" in said and "out/second" in said and "nothing here was touched" in said
    assert two.files() == []
    assert here.share() == (0, f"{remote}: {3 if lost == 'files' else 1} files and 0 runs sent, all others are there")
    assert two.take()[0] == 0 and two.files() == here.files()


def test_without_a_remote_or_a_repository_it_says_so(here: Clone, tmp_path: Path) -> None:
    said = 1, "no remote is known here: `stillhouse share s3://bucket/folder` names one"
    assert (here.share(), here.take()) == (said, said)
    bare = tmp_path / "bare"
    bare.mkdir()
    assert Clone(bare).share() == (1, "there is no DVC repository here; call this in a clone or a workspace")
    code, said = here.share("gs://bucket/us")
    assert code == 1 and said.endswith("needs the package dvc-gs: `uv pip install --constraint constraints.txt dvc-gs`")


def test_what_is_in_the_way_stays(here: Clone, tmp_path: Path) -> None:
    here.share(str(tmp_path / "remote"))
    two = here.clone("two")
    (two.root / "out" / "first").write_text("mine\n", "utf-8")
    code, said = two.take()
    assert code == 1 and "DVC does not put it in place" in said
    assert (two.root / "out" / "first").read_text("utf-8") == "mine\n"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with serving(tmp_path_factory.mktemp("bucket")) as running:
        yield running


@pytest.fixture
def one(bucket: Bucket, tmp_path: Path) -> Clone:
    return made(tmp_path, bucket.env())


FAULTS: dict[str, tuple[int, str, Callable[[Bucket], dict[str, str]]]] = {
    "may only read": (1, "Access Denied", lambda bucket: bucket.env("reader")),
    "is nobody": (1, "does not exist in our records", lambda bucket: bucket.env("nobody")),
    "is down": (75, "Could not connect", lambda bucket: {**bucket.env(), "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}),
}


@S3
@pytest.mark.servers
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bucket_that_does_not_take_it_is_one_sentence(fault: str, one: Clone, bucket: Bucket) -> None:
    expected, cause, who = FAULTS[fault]
    assert one.share(f"{bucket.url}/{fault.replace(' ', '-')}")[0] == 0
    (one.root / "given").write_text("other\n", "utf-8")
    one.repro()
    before = one.files()
    code, said = one.share(**who(bucket))
    assert code == expected and "\n" not in said
    assert cause in said and "did not take all of it" in said and "nothing is lost" in said
    assert one.files() == before and one.repro() == []
    code, said = one.share()
    assert code == 0 and said.endswith("2 files and 2 runs sent, all others are there")


@S3
@pytest.mark.servers
def test_a_remote_that_refuses_the_runs_alone_is_found_out(one: Clone, bucket: Bucket) -> None:
    """DVC's own push ends well here, and says that it pushed them."""
    where = f"{bucket.url}/runs"
    assert one.share(where)[0] == 0
    with one.inside({}):
        fsspec.filesystem("s3").rm(f"{where}/runs", recursive=True)
    push = [sys.executable, "-m", "dvc", "push", "--run-cache"]
    env = {**os.environ, **bucket.env("reader")}
    assert subprocess.run(push, cwd=one.root, env=env, capture_output=True, check=False).returncode == 0
    code, said = one.share(**bucket.env("reader"))
    assert code == 1 and "Access Denied" in said
    assert one.share() == (0, f"{where}: 0 files and 2 runs sent, all others are there")


@S3
@pytest.mark.servers
def test_who_may_not_read_is_told_and_who_may_takes(one: Clone, bucket: Bucket) -> None:
    one.share(f"{bucket.url}/read")
    two = one.clone("two")
    code, said = two.take(**bucket.env("nobody"))
    assert code == 1 and "did not give all of it (Forbidden)" in said and two.files() == []
    assert two.take(**bucket.env("reader"))[1].startswith(f"{bucket.url}/read: 3 files and 2 runs taken")
    assert two.files() == one.files() and two.repro() == []
