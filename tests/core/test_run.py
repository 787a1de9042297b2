"""How a stage is run never changes what it gives, and a failure in a worker is a failure of the run."""

from __future__ import annotations

import io
import os
import sys
import threading
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from pipeline.bounded import machine_memory
from pipeline.core.run import How, run_parts
from pipeline.core.settings import RunSettings
from pipeline.errors import GateFailed, Refused

INLINE = RunSettings()
THREE = RunSettings(executor="processes", workers=3)


@pytest.mark.parametrize("settings", [INLINE, THREE, RunSettings(executor="processes", workers=1)])
def test_every_part_is_worked_once_and_in_order(settings: RunSettings) -> None:
    assert list(run_parts(lambda part: part * part, 7, settings, ())) == [0, 1, 4, 9, 16, 25, 36]


def test_parts_are_worked_in_other_processes_only_where_asked() -> None:
    here = os.getpid()
    assert set(run_parts(lambda _: os.getpid(), 4, INLINE, ())) == {here}
    assert here not in run_parts(lambda _: os.getpid(), 4, THREE, ())
    assert list(run_parts(lambda _: os.getpid(), 1, THREE, ())) == [here]


@pytest.mark.parametrize("settings", [INLINE, THREE])
def test_a_refusal_of_one_part_is_that_of_the_run(settings: RunSettings) -> None:
    def work(part: int) -> int:
        if part == 2:
            raise GateFailed("part 2 is wrong")
        return part

    with pytest.raises(Refused, match="part 2 is wrong") as refused:
        list(run_parts(work, 4, settings, ()))
    assert refused.value.exit_code == 65


def test_a_killed_worker_is_not_an_empty_part() -> None:
    def work(part: int) -> int:
        if part == 1:
            os._exit(9)
        return part

    with pytest.raises(BrokenProcessPool):
        list(run_parts(work, 4, THREE, ()))


def test_heavy_imports_are_paid_before_the_fork() -> None:
    threads = threading.active_count()
    assert list(run_parts(lambda _: int("colorsys" in __import__("sys").modules), 3, THREE, ("colorsys",))) == [1, 1, 1]
    assert threading.active_count() == threads


def test_progress_is_told_at_the_end(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    how = How(INLINE, tmp_path, "train@kd")  # type: ignore[arg-type]
    for step in range(1, 4):
        how.progress(step, 3, "steps")
    assert capsys.readouterr().err == "train@kd: 3 of 3 steps\n"


class Clock:
    """A clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


class Terminal(io.StringIO):
    """Standard error on a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_line_every_five_seconds_tells_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    clock = Clock(monkeypatch)
    how = How(INLINE, tmp_path, "train@kd")
    for step in range(41, 61):  # 40 were done before this run
        clock.now += 0.5
        how.progress(step, 100, "steps")
    how.progress(61, 100, "answers, $2, 3 s left")
    clock.now += 5
    how.progress(62, 100, "answers, $2, 3 s left")
    assert capsys.readouterr().err.splitlines() == [
        "train@kd: 50 of 100 steps, 2/s, 25 s left",
        "train@kd: 60 of 100 steps, 2/s, 20 s left",
        "train@kd: 62 of 100 answers, $2, 3 s left",
    ]


def test_on_a_terminal_one_bar_tells_it_and_other_lines_stand_above(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock, terminal = Clock(monkeypatch), Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    how = How(INLINE, tmp_path, "train@kd")
    for step in range(1, 4):
        clock.now += 1
        how.progress(step, 4, "steps, $0.5, 0.0% failed\x1b]0;owned\x07")
    how.say("a word")
    how.progress(4, 4, "steps")
    how.close()
    drawn = terminal.getvalue()
    assert "2 of 4 steps, $0.5, 0.0% failed]0;owned, 1/s, 2 s left" in drawn and "\x1b]0" not in drawn
    assert "train@kd: a word\n" in drawn
    assert drawn.rindex("4 of 4 steps") > drawn.index("a word") and "\x1b[?25h" in drawn  # the cursor is back
    assert sys.stderr is terminal


def test_workers_leave_the_terminal_to_their_parent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    how = How(INLINE, tmp_path, "score@a")
    monkeypatch.setattr("os.getpid", lambda: 0)
    how.progress(3, 3, "parts")
    assert terminal.getvalue() == ""


def test_memory_is_a_share_of_the_machine_or_a_size() -> None:
    told = {given: RunSettings.model_validate({"memory": given}).query.held for given in (0.5, "2GB", 300_000_000)}
    assert told == {0.5: machine_memory() // 2, "2GB": 2_000_000_000, 300_000_000: 300_000_000}
    assert RunSettings().query.held == 500_000_000 < machine_memory()
