"""Killed with SIGKILL at any moment, a stage goes on to the same bytes and asks for nothing twice."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from pipeline.tables.parquet import folder_digest
from tests.e2e.conftest import BIN, Workspace

pytestmark = pytest.mark.e2e
MOMENTS = 10


@dataclass
class Victim:
    """A stage instance that is run alone, again and again, in a workspace where everything else is done."""

    workspace: Workspace
    parent: psutil.Process
    stage: str
    name: str
    output: Path
    leftovers: Path

    def begin(self) -> tuple[subprocess.Popen[str], psutil.Process]:
        """Start it; returns the caller and the process that works, a fork of the warm parent."""
        command = [sys.executable, "-m", "pipeline", self.stage, self.name]
        caller = subprocess.Popen(
            command, cwd=self.workspace.root, env=self.workspace.env, stderr=subprocess.PIPE, text=True
        )
        while not (forks := self.parent.children()):
            assert caller.poll() is None
        return caller, forks[0]

    def finish(self) -> tuple[str, str]:
        """Run it to its end; returns the hash of its output, and what it said."""
        done = self.workspace.run(sys.executable, "-m", "pipeline", self.stage, self.name)
        return folder_digest(self.output), done.stderr

    def undisturbed(self) -> tuple[str, float]:
        """The hash of its output when nobody disturbs it, and how long that takes."""
        self.forget()
        caller, _ = self.begin()
        started = time.monotonic()
        _, said = caller.communicate()
        assert caller.returncode == 0, said
        return folder_digest(self.output), time.monotonic() - started

    def kill_at(self, moment: float) -> None:
        """Begin from nothing and kill the worker after a number of seconds; earlier if it has ended by then."""
        while True:
            self.forget()
            caller, worker = self.begin()
            try:
                caller.wait(moment)
            except subprocess.TimeoutExpired:
                worker.kill()
            caller.communicate()
            if caller.returncode == 128 + signal.SIGKILL:
                return
            moment *= 0.8

    def forget(self) -> None:
        for folder in (self.output, self.leftovers):
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def workspace(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A finished workspace in which answers come in small batches, and training has many steps."""
    place = finished.copy(tmp_path_factory.mktemp("killed") / "repo")

    def change(params: dict) -> None:
        params["run"].update(batch_rows=32, checkpoint_steps=5)
        params["train"]["random_sft"].update(epochs=3, batch_rows=4)

    place.edit(change)
    place.run(sys.executable, "-m", "pipeline", "plan")
    return place


def known(memo: Path) -> int:
    """How many answers the memo holds."""
    try:
        with sqlite3.connect(f"file:{memo / 'requests.sqlite'}?mode=ro", uri=True) as connection:
            return connection.execute("SELECT count(*) FROM memo").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def from_memo(said: str) -> tuple[int, int]:
    """How many answers a run of generate took from the memo, and how many it needed."""
    counts = re.findall(r": (\d+) of (\d+) from memo", said)
    return sum(int(taken) for taken, _ in counts), sum(int(needed) for _, needed in counts)


def moments(seed: int, duration: float) -> list[float]:
    drawn = random.Random(seed)
    return [drawn.uniform(0.02, 0.98) * duration for _ in range(MOMENTS)]


@pytest.mark.long
def test_a_killed_generate_goes_on(workspace: Workspace, warm_parent: tuple[psutil.Process, str]) -> None:
    memo = workspace.data / ".memo"
    output = workspace.data / "responses" / "train" / "teacher"
    victim = Victim(workspace, warm_parent[0], "generate", "teacher", output, memo)
    digest, duration = victim.undisturbed()
    needed = known(memo)
    kept = []
    for moment in moments(1, duration):
        victim.kill_at(moment)
        kept.append(known(memo))
        found, said = victim.finish()
        assert found == digest
        # What was received before the kill was not asked for again, and nothing was asked for twice; a part that was
        # whole stands, and looks for nothing.
        taken, wanted = from_memo(said)
        assert 0 <= needed - wanted == kept[-1] - taken
        assert known(memo) == needed
    assert any(0 < received < needed for received in kept)


@pytest.mark.long
def test_a_killed_train_goes_on(workspace: Workspace, warm_parent: tuple[psutil.Process, str]) -> None:
    checkpoints = workspace.data / ".checkpoints" / "random_sft"
    output = workspace.data / "models" / "random_sft"
    victim = Victim(workspace, warm_parent[0], "train", "random_sft", output, checkpoints)
    digest, duration = victim.undisturbed()
    resumed = 0
    for moment in moments(2, duration):
        victim.kill_at(moment)
        resumed += any(checkpoints.glob("*/checkpoint-*/complete"))
        assert victim.finish()[0] == digest
    assert resumed


@pytest.mark.parametrize(
    ("label", "output"), [("generate@teacher", "responses/train/teacher"), ("train@random_sft", "models/random_sft")]
)
def test_killed_between_the_rename_and_the_lock(done: Workspace, label: str, output: str) -> None:
    """The output is there and DVC does not know it yet."""
    folder, lock = done.data / output, done.root / "dvc.lock"
    digest, before = folder_digest(folder), done.hashes()
    content = yaml.safe_load(lock.read_text("utf-8"))
    del content["stages"][label]
    lock.write_text(yaml.safe_dump(content), "utf-8")
    shutil.rmtree(folder)
    # DVC would take the output from there, and nothing would run.
    shutil.rmtree(done.root / ".dvc" / "cache" / "runs")
    repro = subprocess.Popen(
        [BIN / "dvc", "repro", label], cwd=done.root, env=done.env, stdout=subprocess.DEVNULL, start_new_session=True
    )
    while not folder.exists():
        assert repro.poll() is None
    os.killpg(repro.pid, signal.SIGKILL)
    repro.wait()
    assert label not in done.lock()

    finished = done.dvc("repro", label)
    assert f"Running stage '{label}'" in finished.stdout
    assert folder_digest(folder) == digest
    assert done.hashes() == before
    if label.startswith("generate"):
        taken, needed = from_memo(finished.stderr)
        assert taken == needed > 0
