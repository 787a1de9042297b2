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
from typing import TypeVar

T = TypeVar("T")
# How often it is looked at how much memory a child has.
LOOK_S = 0.05


@dataclass(frozen=True)
class Limits:
    """Seconds by the clock, and bytes of memory beyond what the process has that starts the work; None is no bound."""

    seconds: float
    memory: int | None = None


class Ended(Exception):
    """The child was ended or died before it gave anything; the text says how, and `late` that its time was over."""

    def __init__(self, text: str, *, late: bool = False) -> None:
        super().__init__(text)
        self.late = late


def bounded(work: Callable[[], T], limits: Limits) -> T:
    """What `work` gives, called in a fork of this process; what it raises is raised here.

    Raises `Ended` where the child was ended at its limits, or by a library that aborted. What it gives is pickled.
    """
    context = multiprocessing.get_context("fork")
    hear, tell = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(work, tell, limits), daemon=True)
    child.start()
    tell.close()
    before, until = _resident(os.getpid()), time.monotonic() + limits.seconds
    try:
        while not hear.poll(min(LOOK_S, max(0.0, until - time.monotonic()))):
            if time.monotonic() >= until:
                raise Ended(f"it took longer than {limits.seconds:g} s", late=True)
            # What this process has freed and not given back a library takes without asking for more.
            if limits.memory is not None and _resident(child.pid) > before + limits.memory:
                raise Ended("it was ended")
        good, found = hear.recv()
    except (EOFError, OSError) as error:
        child.join()
        raise _ended(child.exitcode or 0) from error
    finally:
        child.kill()
        child.join()
        hear.close()
    if good:
        return found
    raise found


def _ended(code: int) -> Ended:
    if code == -signal.SIGXCPU:
        return Ended("it used up its time", late=True)
    return Ended(f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}")


def _child(work: Callable[[], T], tell: Connection, limits: Limits) -> None:
    """Do the work under the limits, and tell what came of it."""
    # A library that aborts says so to nobody: whoever waits is told how the child ended.
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Should the parent be killed, nobody waits any longer: the time of the processor ends this one too.
    most = math.ceil(limits.seconds) + 1
    _limit(resource.RLIMIT_CPU, most)
    if limits.memory is not None:
        _limit(resource.RLIMIT_DATA, _data() + limits.memory)
    try:
        answer = (True, work())
    except Exception as error:
        answer = (False, error)  # type: ignore[assignment]
    tell.send(answer)


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
