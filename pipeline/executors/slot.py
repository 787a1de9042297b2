"""A worker that another process speaks to: it is told a task, then parts, and says what each came to.

Run in a fork of a warm parent, with the pipe in place of standard input. It says ("said", a line), ("asks", a call of
the memo's), and ("done", what a part came to or its error).
"""

from __future__ import annotations

import io
import os
import pickle
import threading
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.core import identity
from pipeline.core.parts import Done, Task, Worker
from pipeline.core.settings import limit_threads
from pipeline.core.warm import die_with_parent
from pipeline.errors import Refused
from pipeline.memo import home
from pipeline.tables import parquet

# What else than the code decides bytes.
PACKAGES = ("pyarrow", "duckdb", "numpy", "torch", "transformers")


def sees(data: Path) -> dict[str, str]:
    """What two processes must see alike if one is to do the other's work."""
    found = {"code": identity.package(identity.OWN), "plan": parquet.folder_digest(data / "plan")}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def unlike(task: Task, expected: dict[str, str], where: str) -> str | None:
    """Why this process cannot do the work of one that sees that, in a sentence; None if it can."""
    place = Path.cwd()
    if not Path(task.scratch).is_dir():
        return (
            f"the node {where} does not see {place / task.scratch}, which was made a moment ago: it has another folder "
            f"at {place}. Every node must have the workspace's own folder there, such as a network file system"
        )
    found = sees(Path(task.data))
    if found["plan"] != expected["plan"]:
        return f"the node {where} reads another {place / task.data / 'plan'}: every node must see the same folder"
    if found["code"] != expected["code"]:
        return (
            f"the node {where} has another version of this package ({Path(identity.PACKAGE)}), of the workspace's own "
            f"methods, or of Python: install the same on every node"
        )
    return next(
        (
            f"the node {where} has {package} {found[package]} and not {expected[package]}: install the same on every "
            f"node"
            for package in PACKAGES
            if found[package] != expected[package]
        ),
        None,
    )


class Said(io.TextIOBase):
    """A stream whose whole lines go over the pipe."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe, self.begun = pipe, ""

    def write(self, text: str) -> int:
        *lines, self.begun = (self.begun + text).split("\n")
        for line in lines:
            self.pipe.send("said", line)
        return len(text)


class Pipe:
    """The pipe to whom this worker works for; threads of an engine may say something too."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self._lock = connection, threading.Lock()

    def send(self, what: str, content: Any) -> None:
        """Say something."""
        with self._lock:
            self.connection.send((what, content))

    def ask(self, call: home.Call) -> Any:
        """Have a call of the memo's made at home."""
        self.send("asks", pickle.dumps(call))
        answer = self.connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def serve(pipe: Pipe) -> None:
    """Do what is told until nothing more is."""
    where, (task, expected) = pipe.connection.recv(), pipe.connection.recv()
    fault = unlike(task, expected, where)
    limit_threads(task.settings.threads)
    home.elsewhere(pipe.ask)
    with Worker(task) as worker:
        for part in iter(pipe.connection.recv, None):
            done = Refused(f"{task.instance.label}: {fault}.") if fault else _worked(worker, part)
            if isinstance(done, Done):
                done = replace(done, where=where)
            pipe.send("done", pickle.dumps(done))


def _worked(worker: Worker, part: int) -> Done | Exception:
    try:
        return worker(part)
    except Exception as error:
        if not isinstance(error, Refused):
            traceback.print_exc()
        try:
            # Our own, read back to see whether whoever asked can read it.
            pickle.loads(pickle.dumps(error))
        except Exception:
            return RuntimeError(f"{type(error).__name__}: {error}")
        return error


if __name__ == "__main__":
    die_with_parent()
    pipe = Pipe(Connection(os.dup(0)))
    with redirect_stdout(Said(pipe)), redirect_stderr(Said(pipe)):
        serve(pipe)
