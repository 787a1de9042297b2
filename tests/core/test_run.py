"""How a run is said to be run, and what it tells on the way."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.bounded import machine_memory
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.plan.faults import explained

INLINE = RunSettings()


@pytest.mark.parametrize(
    ("written", "name", "arguments"),
    [
        ("inline", "local.inline", {}),
        ("processes", "local.processes", {}),
        ({"use": "processes"}, "local.processes", {}),
        ("local.inline", "local.inline", {}),
    ],
)
def test_an_executor_is_named_as_any_method(written: object, name: str, arguments: dict[str, object]) -> None:
    settings = RunSettings.model_validate({"executor": written})
    assert (settings.executor.name, settings.executor.arguments) == (name, arguments)
    assert RunSettings.model_validate_json(settings.model_dump_json()) == settings
    assert RunSettings().executor.name == "local.inline"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("threads", "run.executor.*no executor is called 'threads'.*local.inline"),
        ({"use": "local.inlin"}, "no executor is called 'local.inlin'; did you mean local.inline?"),
        ({"use": "local.inline", "workers": 3}, "run.executor.workers.*local.inline has no parameter 'workers'"),
        (3, "run.executor"),
    ],
)
def test_an_executor_that_there_is_not_is_a_fault_of_the_parameters(written: object, said: str) -> None:
    with pytest.raises(ValidationError) as error:
        RunSettings.model_validate({"executor": written})
    assert re.search(said, "\n".join(explained("run", error.value, RunSettings)))


def test_a_worker_opens_once_what_another_opens_every_time(tmp_path: Path) -> None:
    opened: list[str] = []

    @contextmanager
    def opening() -> Iterator[int]:
        opened.append("open")
        yield len(opened)
        opened.append("close")

    with ExitStack() as stack:
        how = How(INLINE, tmp_path, "generate@a", opened=stack)
        for _ in range(3):
            with how.once(tmp_path, opening) as model:
                assert model == 1
        assert opened == ["open"]
    assert opened == ["open", "close"]
    alone = How(INLINE, tmp_path, "evaluate@a")
    for _ in range(2):
        with alone.once(tmp_path, opening):
            pass
    assert opened == ["open", "close"] * 3


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
