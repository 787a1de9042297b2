"""Work in a child: what it gives and raises comes back, and whatever ends it ends nothing else."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import duckdb
import psutil
import pytest

from pipeline.bounded import Child, Ended, Limits, bounded
from pipeline.errors import Refused

LIMITS = Limits(seconds=30, memory=200_000_000)


def refuse() -> None:
    raise Refused("no")


def spin() -> None:
    while True:
        pass


@pytest.mark.parametrize("value", [None, 3, "é\0", [1, {"a": 2}], b"x" * 3_000_000])
def test_what_the_work_gives_comes_back(value: object) -> None:
    assert bounded(lambda: value, LIMITS) == value


@pytest.mark.parametrize(
    ("work", "raised"),
    [
        (refuse, Refused),
        (lambda: 1 / 0, ZeroDivisionError),
        (lambda: {}["x"], KeyError),
        (lambda: bytes(10**9), MemoryError),
    ],
)
def test_what_the_work_raises_is_raised_here(work: Callable[[], object], raised: type[Exception]) -> None:
    with pytest.raises(raised):
        bounded(work, LIMITS)


@pytest.mark.parametrize(
    ("work", "how"),
    [
        (os.abort, "SIGABRT"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV"),
        (lambda: os._exit(3), "exit code 3"),
        (lambda: os._exit(0), "exit code 0"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "SIGTERM"),
    ],
)
def test_a_death_is_told_and_outlived(work: Callable[[], object], how: str) -> None:
    def quietly() -> object:
        faulthandler.disable()
        return work()

    with pytest.raises(Ended, match=how) as ended:
        bounded(quietly, LIMITS)
    assert not ended.value.late


@pytest.mark.parametrize("work", [spin, lambda: time.sleep(1000), lambda: signal.pause()])
def test_what_does_not_end_is_ended(work: Callable[[], object]) -> None:
    with pytest.raises(Ended, match=r"longer than 0\.2 s") as ended:
        bounded(work, Limits(seconds=0.2))
    assert ended.value.late


def test_nothing_of_the_child_reaches_the_parent() -> None:
    seen: list[int] = []
    assert bounded(lambda: seen.append(1), LIMITS) is None
    assert seen == []


def test_memory_that_a_library_has_freed_and_kept_is_not_lent() -> None:
    """DuckDB keeps what it freed; a child's query would take it without asking the system for more."""
    text = "SELECT length(repeat('x', 600000000))"
    duckdb.sql(text).fetchall()
    with pytest.raises(Ended, match="it was ended"):
        bounded(lambda: duckdb.sql(text).fetchall(), LIMITS)


def test_a_child_that_stays_answers_again_and_again_and_begins_once() -> None:
    begun = []

    def begin() -> Callable[[int], tuple[int, int, float]]:
        begun.append(1)
        return lambda number: (os.getpid(), len(begun), 1 / number)

    child = Child(begin, LIMITS)
    try:
        one, two = child.ask(1), child.ask(2)
        with pytest.raises(ZeroDivisionError):
            child.ask(0)
        assert child.ask(4) == (one[0], 1, 0.25) and two == (one[0], 1, 0.5) and one[0] != os.getpid()
    finally:
        child.end()
    assert begun == []


def test_a_child_that_was_ended_answers_nothing_more() -> None:
    child = Child(lambda: time.sleep, Limits(seconds=0.2))
    try:
        assert child.ask(0) is None
        with pytest.raises(Ended, match="longer than"):
            child.ask(1000)
    finally:
        child.end()
    with pytest.raises(Ended, match="SIGKILL"):
        child.ask(0)


def test_a_child_goes_when_its_parent_does() -> None:
    program = """
import os
from pipeline.bounded import Child, Limits
child = Child(lambda: lambda _: os.getpid(), Limits(seconds=60))
print(child.ask(None), flush=True)
os._exit(9)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    until = time.monotonic() + 30
    while psutil.pid_exists(int(done.stdout)):
        assert time.monotonic() < until
        time.sleep(0.05)
