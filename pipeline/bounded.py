"""Work in a child process whose time and memory are bounded from outside, whatever a library does in it."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import re
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Q = TypeVar("Q")
# How often it is looked at how much memory a child has.
LOOK_S = 0.05


# What SQL holds where it may put more on the disk.
HELD = 500_000_000


@dataclass(frozen=True)
class Limits:
    """Seconds by the clock, and bytes of memory beyond what the process has that starts the work; None is no bound.

    Work that may put rows on the disk holds no more than `held` bytes of them.
    """

    seconds: float
    memory: int | None = None
    held: int = HELD


def machine_memory() -> int:
    """The bytes of memory that a process may have here: the machine's, or its control group's where that is less."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        most = min(most, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return most


class Ended(Exception):
    """The child was ended or died before it gave anything; the text says how, and `late` that its time was over."""

    def __init__(self, text: str, *, late: bool = False) -> None:
        super().__init__(text)
        self.late = late


def bounded(work: Callable[[], T], limits: Limits) -> T:
    """What `work` gives, called in a fork of this process; what it raises is raised here.

    Raises `Ended` where the child was ended at its limits, or by a library that aborted. What it gives is pickled.
    """
    child: Child[None, T] = Child(lambda: lambda _: work(), limits)
    try:
        return child.ask(None)
    finally:
        child.end()


class Child(Generic[Q, T]):
    """A fork of this process that answers one question after another, each within the limits.

    It makes what answers with `begin`, when it is first asked. Once it has `Ended`, it answers nothing.
    """

    def __init__(self, begin: Callable[[], Callable[[Q], T]], limits: Limits) -> None:
        context = multiprocessing.get_context("fork")
        self.limits = limits
        self._here, there = context.Pipe()
        self._process = context.Process(target=_child, args=(begin, self._here, there, limits), daemon=True)
        self._process.start()
        there.close()
        self._before = _resident(os.getpid())

    def ask(self, question: Q) -> T:
        """Its answer; what it raises is raised here."""
        try:
            good, found = self._heard(question)
        except Ended:
            self.end()
            raise
        if good:
            return found
        raise found

    def _heard(self, question: Q) -> tuple[bool, Any]:
        until = time.monotonic() + self.limits.seconds
        try:
            self._here.send(question)
            while not self._here.poll(min(LOOK_S, max(0.0, until - time.monotonic()))):
                if time.monotonic() >= until:
                    raise Ended(f"it took longer than {self.limits.seconds:g} s", late=True)
                # What this process has freed and not given back a library takes without asking for more.
                memory = self.limits.memory
                if memory is not None and _resident(self._process.pid) > self._before + memory:
                    raise Ended("it was ended")
            return self._here.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            raise _ended(self._process.exitcode or 0) from error

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.join()
        self._here.close()


def _ended(code: int) -> Ended:
    if code == -signal.SIGXCPU:
        return Ended("it used up its time", late=True)
    return Ended(f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}")


def _child(begin: Callable[[], Callable[[Any], Any]], other: Connection, here: Connection, limits: Limits) -> None:
    """Answer under the limits until nobody asks any more."""
    # Held open here, the other end would never seem closed.
    other.close()
    # A library that aborts says so to nobody: whoever waits is told how the child ended.
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.memory is not None:
        _limit(resource.RLIMIT_DATA, _data() + limits.memory)
    answer = None
    with contextlib.suppress(EOFError):
        while True:
            question = here.recv()
            # Should the parent be killed, nobody waits any longer: the time of the processor ends this one too.
            _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + limits.seconds) + 1)
            try:
                answer = answer or begin()
                said = (True, answer(question))
            except Exception as error:
                said = (False, error)
            here.send(said)


def _limit(what: int, most: int) -> None:
    """Lower a limit of this process; one that is lower already stays."""
    hard = resource.getrlimit(what)[1]
    with contextlib.suppress(ValueError):
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _resident(pid: int | None) -> int:
    """The bytes of a process that are in memory and of no file; 0 where the system does not tell."""
    try:
        said = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", said)
    return int(found[1]) * 1024 if found else 0


def _data() -> int:
    """The bytes that this process may write to, as RLIMIT_DATA counts them; 0 where the system does not tell."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[5]) * resource.getpagesize() if file.exists() else 0
