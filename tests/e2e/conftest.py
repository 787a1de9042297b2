"""A workspace: a repository of its own that runs the real `dvc.yaml` on the real stages, with small numbers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from filelock import FileLock

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def small(params: dict[str, Any]) -> dict[str, Any]:
    """The default parameters, shrunk: the same graph, a hundredth of the work."""
    params["run"] = {"executor": "inline", "batch_rows": 256, "checkpoint_steps": 5}
    params["ingest"]["tasks"].update(rows=192, parts=3)
    params["ingest"]["held_out"].update(rows=48)
    params["generate"]["teacher"].update(k=4)
    for entry in params["select"].values():
        entry["budget_tokens"] = 1000
    for entry in params["train"].values():
        entry.update(epochs=1, batch_rows=8)
    for entry in params["quality"].values():
        entry.pop("bounds", None)
    return params


@dataclass
class Workspace:
    """A copy of the repository; commands run in it with its own code."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.root / "data"

    def run(self, *command: str, check: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a command here; its output is shown if it fails."""
        done = subprocess.run(
            command, cwd=self.root, env={**self.env, **extra}, capture_output=True, text=True, check=False, timeout=560
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def dvc(self, *arguments: str, check: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(BIN / "dvc"), *arguments, check=check, **extra)

    def repro(self, *arguments: str, check: bool = True, **extra: str) -> list[str]:
        """`dvc repro`; returns the instances that were run."""
        done = self.dvc("repro", *arguments, check=check, **extra)
        return [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage '")]

    def params(self) -> dict[str, Any]:
        return yaml.safe_load((self.root / "params.yaml").read_text("utf-8"))

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change params.yaml."""
        params = self.params()
        change(params)
        (self.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), "utf-8")

    def lock(self) -> dict[str, Any]:
        """dvc.lock's stages: names to the hashes of what they read and wrote."""
        return yaml.safe_load((self.root / "dvc.lock").read_text("utf-8"))["stages"]

    def hashes(self) -> dict[str, str]:
        """Output path -> hash, for every table and model (the report holds times)."""
        return {
            out["path"]: out["md5"]
            for stage in self.lock().values()
            for out in stage.get("outs", [])
            if out["path"] != "data/reports"
        }

    def copy(self, place: Path) -> Workspace:
        """Everything, the DVC cache too, at another place."""
        shutil.copytree(self.root, place, symlinks=True)
        return Workspace(place, self.env)


def make_workspace(place: Path, env: dict[str, str], change: Callable[[dict[str, Any]], Any] = small) -> Workspace:
    """The tracked and untracked sources of this repository at another place, as a git repository of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if not name.startswith(("tests/", "benchmarks/", "docs/", "recipes/")) and (ROOT / name).is_file():
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    (place / "dvc.lock").unlink(missing_ok=True)
    workspace = Workspace(place, env)
    workspace.edit(lambda params: change(params) and None)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        workspace.run("git", *command)
    return workspace


@pytest.fixture(scope="session")
def clean_env() -> dict[str, str]:
    """The environment of a user; compiled files are kept, because stages start so often."""
    unwanted = ("STILLHOUSE", "DVC", "PYTEST", "PYTHONDONTWRITEBYTECODE")
    env = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
    author = {f"GIT_{who}_{what}": "t@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return {**env, **author, "PATH": f"{BIN}:{env['PATH']}", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def warm_parent(
    clean_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[psutil.Process, str]]:
    """The warm parent of all stages of the session, and its address: a stage is a child of it."""
    address = tmp_path_factory.mktemp("warm") / "socket"
    parent = subprocess.Popen([sys.executable, "-m", "pipeline.core.warm", str(address)], cwd=ROOT, env=clean_env)
    try:
        deadline = time.monotonic() + 60
        while not address.exists():
            assert time.monotonic() < deadline and parent.poll() is None, "the warm parent did not start"
        yield psutil.Process(parent.pid), str(address)
    finally:
        parent.terminate()
        parent.wait()


@pytest.fixture(scope="session")
def env(clean_env: dict[str, str], warm_parent: tuple[psutil.Process, str]) -> dict[str, str]:
    """The environment of a workspace, with the warm parent."""
    return {**clean_env, "STILLHOUSE_WARM": warm_parent[1]}


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a user brings: prompts, a teacher and a student."""
    from tests.e2e.brought import bring

    folder = tmp_path_factory.mktemp("brought") / "own"
    bring(folder)
    return folder


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """A folder that is made once for all workers of a test run, by the first that needs it."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        place, made = root / name, root / f"{name}.made"
        with FileLock(root / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(place, ignore_errors=True)
                make(place)
                made.touch()
        return place

    return folder


@pytest.fixture(scope="session")
def finished(env: dict[str, str], shared: Callable[[str, Callable[[Path], None]], Path]) -> Workspace:
    """A workspace in which the whole graph has run once. Tests copy it and never change it."""

    def make(place: Path) -> None:
        workspace = make_workspace(place, env)
        workspace.repro()
        workspace.run("git", "add", "-A")
        workspace.run("git", "commit", "-qm", "finished")

    return Workspace(shared("finished", make), env)


@pytest.fixture
def done(finished: Workspace, tmp_path: Path) -> Workspace:
    """A finished workspace that the test may change."""
    return finished.copy(tmp_path / "repo")


@pytest.fixture(scope="session")
def apart() -> tuple[str, ...] | None:
    """The beginning of a command that runs without any network, its own machine's included; None if not permitted."""
    for command in (("unshare", "--net"), ("unshare", "--net", "--map-root-user")):
        if (
            shutil.which("unshare")
            and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
        ):
            return command
    return None


@pytest.fixture(scope="session")
def again(
    finished: Workspace,
    clean_env: dict[str, str],
    apart: tuple[str, ...] | None,
    shared: Callable[[str, Callable[[Path], None]], Path],
) -> tuple[Workspace, str]:
    """The same commit once more: a clone without data, other workers, no network; and what Linux counted of it."""

    def make(place: Path) -> None:
        finished.run("git", "clone", "-q", ".", str(place))
        there = Workspace(place, clean_env)
        (place / "dvc.lock").unlink()
        there.edit(lambda params: params["run"].update(executor="processes", workers=3, batch_rows=48))
        script = f"{sys.executable} -m pipeline warm dvc repro -q && cat /proc/self/net/snmp"
        (place / "snmp").write_text(there.run(*(apart or ()), "sh", "-c", script).stdout, "utf-8")

    place = shared("again", make)
    return Workspace(place, clean_env), (place / "snmp").read_text("utf-8")
