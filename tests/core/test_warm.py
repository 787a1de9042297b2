"""A stage in a fork of the warm parent is the stage: the same code, output, exit code, and end."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import pipeline
from pipeline.core import warm
from pipeline.core.stage import ALONE, SECTION_OF
from pipeline.tables import parquet

PACKAGE = Path(pipeline.__file__).parent
# The parent without the packages that take it ten seconds to import: what it does is the same.
PARENT = """
import os, signal, sys
from pipeline.core import warm
warm.PACKAGES = ("json",)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
warm.serve(sys.argv[1])
"""
WAITS = '''
import os
from pathlib import Path

from pipeline.kinds.origin import origin


@origin(gives=("generate",))
def waits():
    """Tells its process number, and then waits to be told something.

    Paper: none.
    Differs: nothing.
    """
    def fill(out):
        Path("told").write_text(str(os.getpid()), "utf-8")
        Path("heard").read_text("utf-8")
        return {"backend": "recorded.solutions", "model_id": "waited"}

    return fill
'''


class Workspace:
    """A copy of the package with two models to acquire, and a warm parent beside it."""

    def __init__(self, root: Path, address: Path) -> None:
        self.root, self.address = root, address
        self.env = {k: v for k, v in os.environ.items() if k != warm.SOCKET} | {"PYTHONDONTWRITEBYTECODE": "1"}
        shutil.copytree(PACKAGE, root / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
        (root / "pipeline" / "origins" / "mine.py").write_text(WAITS, "utf-8")
        params = {section: {} for section in set(SECTION_OF.values()) - {ALONE}}
        params["acquire"] = {"ready": {"use": "local.solutions"}, "slow": {"use": "mine.waits"}}
        (root / "params.yaml").write_text(yaml.safe_dump(params), "utf-8")
        for name in ("told", "heard"):
            os.mkfifo(root / name)

    def start(self, *arguments: str, warm_parent: bool) -> subprocess.Popen[str]:
        """Call the command line, with the warm parent or without."""
        env = {**self.env, warm.SOCKET: str(self.address)} if warm_parent else self.env
        command = [sys.executable, "-m", "pipeline", *arguments]
        return subprocess.Popen(
            command, cwd=self.root, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *arguments: str, warm_parent: bool) -> tuple[int, str, str]:
        """Call the command line to its end: exit code, and what it said on both streams, without times."""
        with self.start(*arguments, warm_parent=warm_parent) as process:
            out, err = process.communicate(timeout=60)
        return process.returncode, out, re.sub(r"[\d.]+ s \(", "_ s (", err)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    made = Workspace(tmp_path / "repo", tmp_path / "socket")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(made.address)], cwd=made.root, env=made.env)
    deadline = time.monotonic() + 30
    while not made.address.exists():
        assert time.monotonic() < deadline and parent.poll() is None, "the warm parent did not start"
    try:
        yield made
    finally:
        parent.terminate()
        parent.wait()


def test_a_fork_gives_the_same_output_and_exit_code(workspace: Workspace) -> None:
    said, digests = [], []
    for warm_parent in (False, True):
        shutil.rmtree(workspace.root / "data", ignore_errors=True)
        said.append([
            workspace.run(*command, warm_parent=warm_parent)
            for command in (["plan"], ["acquire", "ready"], ["acquire", "nobody"], ["train", "nobody"])
        ])  # fmt: skip
        digests.append([parquet.folder_digest(workspace.root / "data" / n) for n in ("plan", "models")])
    assert said[0] == said[1]
    assert [code for code, _, _ in said[0]] == [0, 0, 1, 1]
    assert digests[0] == digests[1]


def test_a_fork_runs_the_code_that_is_on_disk(workspace: Workspace) -> None:
    for command in (["plan"], ["acquire", "ready"]):
        assert workspace.run(*command, warm_parent=True)[0] == 0
    source = workspace.root / "pipeline" / "origins" / "local.py"
    text = source.read_text("utf-8")
    assert text.count('"model_id": "recorded.solutions"') == 1
    source.write_text(text.replace('"model_id": "recorded.solutions"', '"model_id": "edited"'), "utf-8")
    code, _, err = workspace.run("acquire", "ready", warm_parent=True)
    assert code == 1 and "the plan is older" in err
    for command in (["plan"], ["acquire", "ready"]):
        assert workspace.run(*command, warm_parent=True)[0] == 0
    assert "edited" in (workspace.root / "data" / "models" / "ready" / "model.json").read_text("utf-8")


def test_a_fork_ends_with_its_caller(workspace: Workspace) -> None:
    assert workspace.run("plan", warm_parent=True)[0] == 0
    with workspace.start("acquire", "slow", warm_parent=True) as caller:
        fork = int((workspace.root / "told").read_text("utf-8"))
        assert fork != caller.pid
        handle = os.pidfd_open(fork)
        caller.send_signal(signal.SIGKILL)
    assert select.select([handle], [], [], 30)[0], "the fork lives on"
    os.close(handle)
    assert not (workspace.root / "data" / "models" / "slow").exists()
    # The parent goes on, and the lock of the killed run is free.
    with workspace.start("acquire", "slow", warm_parent=True) as caller:
        assert int((workspace.root / "told").read_text("utf-8")) != fork
        (workspace.root / "heard").write_text("go on", "utf-8")
        assert caller.wait(timeout=60) == 0
    assert "waited" in (workspace.root / "data" / "models" / "slow" / "model.json").read_text("utf-8")


def test_a_killed_fork_is_a_failure_of_its_caller(workspace: Workspace) -> None:
    assert workspace.run("plan", warm_parent=True)[0] == 0
    with workspace.start("acquire", "slow", warm_parent=True) as caller:
        os.kill(int((workspace.root / "told").read_text("utf-8")), signal.SIGKILL)
        assert caller.wait(timeout=60) == 128 + signal.SIGKILL


def test_without_a_parent_a_stage_runs_by_itself(workspace: Workspace, tmp_path: Path) -> None:
    workspace.address = tmp_path / "nobody listens here"
    assert workspace.run("plan", warm_parent=True)[0] == 0
    assert workspace.run("acquire", "ready", warm_parent=True)[0] == 0
