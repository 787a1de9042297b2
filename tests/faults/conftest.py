"""A workspace with two pools of prompts and a served teacher, and processes that run its stages and can be killed.

Stages run as `python -m pipeline <stage> <instance>` would, in processes forked from one that has the imports done.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml

from pipeline.core.stage import ALONE, SECTION_OF
from pipeline.tables.parquet import folder_digest
from tests.faults.server import MODEL, Server, serving

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.faults.paid_once"])
PROMPTS, SHARED, K = 100, 50, 2
REQUESTS = PROMPTS * K
CONCURRENCY = 8
# A process that has not ended by then never will.
DEADLINE_S = 60.0


@dataclass
class Process:
    """A command at work in a workspace."""

    process: ForkServerProcess
    said_to: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def end(self) -> int:
        """Wait for its end; its exit code, or minus the signal that ended it."""
        self.process.join(DEADLINE_S)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"it does not end; it said:\n{self.said}")
        return self.process.exitcode

    def until_said(self, text: str) -> None:
        """Wait until it has said this."""
        deadline = time.monotonic() + DEADLINE_S
        while text not in self.said:
            assert time.monotonic() < deadline and self.process.exitcode is None, self.said

    @property
    def said(self) -> str:
        return self.said_to.read_text("utf-8")


@dataclass
class Workspace:
    """A folder with params.yaml and everything that generate reads; `shared` is whose memo it uses, if not its own."""

    root: Path
    shared: Path | None = None

    @property
    def memo(self) -> Path:
        return (self.shared or self.root) / "data" / ".memo"

    def digest(self, instance: str = "teacher") -> str:
        """A hash of the table that an instance wrote."""
        pool = "train" if instance == "teacher" else "more"
        return folder_digest(self.root / "data" / "responses" / pool / instance)

    def kept(self) -> int:
        """How many answers the memo holds."""
        if not (self.memo / "requests.sqlite").exists():
            return 0
        with sqlite3.connect(self.memo / "requests.sqlite") as connection:
            there = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'memo'").fetchone()[0]
            return connection.execute("SELECT count(*) FROM memo").fetchone()[0] if there else 0

    def serve_by(self, server: Server, *, workers: int = 1, **endpoint: Any) -> None:
        """Let the teacher be served there, and asked by this many processes."""
        params = yaml.safe_load((self.root / "params.yaml").read_text("utf-8"))
        settings = {"url": server.url, "concurrency": CONCURRENCY, "timeout_s": 20, **endpoint}
        how = {"executor": "inline"} if workers == 1 else {"executor": "processes", "workers": workers}
        params["run"] = {**how, "endpoints": {"teacher": settings}}
        (self.root / "params.yaml").write_text(yaml.safe_dump(params), "utf-8")

    def start(self, *command: str, first: Callable[..., None] | None = None, given: tuple[Any, ...] = ()) -> Process:
        """Begin `python -m pipeline <command>`; `first(*given)` is called in the process before anything else."""
        command = command or ("generate", "teacher")
        said = self.root / f"said-{len(list(self.root.glob('said-*')))}"
        said.touch()
        process = FORKS.Process(target=_run, args=(self.root, self.shared, command, said, first, given))
        process.start()
        return Process(process, said)

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command to its end; what it said."""
        process = self.start(*command)
        ended = process.end()
        assert ended == code, f"it ended with {ended} and said:\n{process.said}"
        return process.said

    def copy(self, place: Path, *, shared: Path | None = None) -> Workspace:
        shutil.copytree(self.root, place)
        return Workspace(place, shared)


def _run(
    root: Path, shared: Path | None, command: tuple[str, ...], said: Path, first: Callable[..., None] | None, given: Any
) -> None:
    from pipeline.__main__ import main

    os.chdir(root)
    os.environ.pop("STILLHOUSE_WARM", None)
    os.environ.pop("DVC_ROOT", None)
    if shared is not None:
        os.environ["DVC_ROOT"] = str(shared)
    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if first is not None:
        first(*given)
    code = main(list(command))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def killed_at(module: str, name: str, number: int) -> None:
    """Kill this process where it begins to call a function for the n-th time."""
    calls = 0

    def look(frame: FrameType, event: str, called: Any) -> None:
        nonlocal calls
        if event == "call":
            at = (frame.f_globals.get("__name__"), frame.f_code.co_qualname)
        elif event == "c_call":
            at = (called.__module__ or type(called.__self__).__module__, called.__qualname__)
        else:
            return
        calls += at == (module, name)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(look)


def small_files(size: int) -> None:
    """Let no file grow over a size, as a full disk would."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which all is done but generate: pool `train`, and pool `more` that shares half its prompts."""
    workspace = Workspace(tmp_path_factory.mktemp("prepared") / "workspace")
    workspace.root.mkdir()
    drawn = random.Random(5)
    texts = [" ".join("".join(drawn.choices("abcdefghij", k=7)) for _ in range(10)) for _ in range(2 * PROMPTS)]
    pools = {"train": texts[:PROMPTS], "more": texts[PROMPTS - SHARED : 2 * PROMPTS - SHARED], "bench": texts[-3:]}
    params: dict[str, Any] = {section: {} for section in {*SECTION_OF.values()} - {ALONE}}
    params |= {
        "seed": 17,
        "acquire": {
            "teacher": {"use": "remote.endpoint", "model": MODEL, "version": "1", "price_in": 1, "price_out": 2}
        },
        "curate": {pool: {"against": "bench"} for pool in ("train", "more")},
        "generate": {
            name: {"pool": pool, "model": "teacher", "k": K, "temperature": 1.0, "max_tokens": 16}
            for name, pool in (("teacher", "train"), ("other", "more"))
        },
    }
    own = workspace.root / "data" / "own"
    own.mkdir(parents=True)
    for pool, prompts in pools.items():
        lines = [json.dumps({"prompt": text}) + "\n" for text in prompts]
        (own / f"{pool}.jsonl").write_text("".join(lines), "utf-8")
        params["ingest"][pool] = {
            "pool": pool,
            "use": "files.jsonl",
            "path": f"data/own/{pool}.jsonl",
            "domain": "words",
            "parts": 2,
        }
    (workspace.root / "params.yaml").write_text(yaml.safe_dump(params), "utf-8")
    workspace.run("plan")
    for command in (
        *(("ingest", pool) for pool in pools),
        ("acquire", "teacher"),
        ("curate", "train"),
        ("curate", "more"),
    ):
        workspace.run(*command)
    return workspace


@pytest.fixture
def workspace(prepared: Workspace, tmp_path: Path) -> Workspace:
    return prepared.copy(tmp_path / "workspace")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "book") as running:
        yield running


@pytest.fixture(scope="session")
def undisturbed(prepared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """The hash of the table of a run that nothing disturbs, against a server with these lasting oddities."""
    found: dict[tuple[Any, ...], str] = {}

    def digest(instance: str = "teacher", **orders: Any) -> str:
        key = (instance, *sorted(orders.items()))
        if key not in found:
            place = tmp_path_factory.mktemp("undisturbed")
            quiet = prepared.copy(place / "workspace")
            with serving(place / "book", **orders) as server:
                quiet.serve_by(server)
                quiet.run("generate", instance)
                assert server.asked().total() == len(server.asked()) == REQUESTS
            found[key] = quiet.digest(instance)
        return found[key]

    return digest
