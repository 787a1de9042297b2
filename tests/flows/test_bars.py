"""How far a run is: a bar for each instance on a terminal, a progress for each in Prefect."""

from __future__ import annotations

import io
import logging
from typing import Any
from uuid import UUID

import pytest
from prefect.logging.handlers import PrefectConsoleHandler

from flows import bars


class Terminal(io.StringIO):
    """Standard error on a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def artifacts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The progress that Prefect is told, instead of telling it."""
    told: list[dict[str, Any]] = []
    made = UUID(int=1)
    monkeypatch.setattr(bars, "create_progress_artifact", lambda **given: (told.append(given), made)[1])
    monkeypatch.setattr(bars, "update_progress_artifact", lambda found, **given: told.append({"of": found, **given}))
    return told


def test_a_line_that_tells_how_far_moves_the_bar_and_the_artifact(
    monkeypatch: pytest.MonkeyPatch, artifacts: list[dict[str, Any]]
) -> None:
    terminal, log = Terminal(), list[str]()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    handler = PrefectConsoleHandler(terminal)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    with bars.Bars(True) as shown:
        left, right = (shown.of(f"train@{name}", f"progress-{name}", log.append) for name in ("a", "b"))
        with left, right:
            left.hear("Running stage 'train@a':")
            right.hear("train@b: 1 of 1 parts")
            left.hear("train@a: 40 of 200 steps, 12/s, 14 s left")
            left.hear("train@a: 200 of 200 steps, loss 0.1")
            shown._drawn.refresh()
            both = terminal.getvalue()
            record = logging.makeLogRecord({"msg": "train@a: 40 of 200 steps, 12/s, 14 s left"})
            assert not handler.filter(record) and handler.filter(logging.makeLogRecord({"msg": "other"}))
            assert handler.console.file is terminal
        shown._drawn.refresh()
        assert shown._drawn.tasks == []
    assert len(log) == 4
    last = both[both.rindex("train@a") :]
    assert "200 of 200 steps, loss 0.1" in last and "train@b" in last and "1 of 1 parts" in last
    assert artifacts == [
        {"key": "progress-a", "progress": 20.0, "description": "40 of 200 steps, 12/s, 14 s left"},
        {"of": UUID(int=1), "progress": 100.0, "description": "200 of 200 steps, loss 0.1"},
    ]


def test_without_a_terminal_nothing_is_drawn(
    capsys: pytest.CaptureFixture[str], artifacts: list[dict[str, Any]]
) -> None:
    with bars.Bars(False) as shown, shown.of("train@a", "progress-a", print) as bar:
        bar.hear("train@a: 1 of 2 steps")
    assert capsys.readouterr() == ("train@a: 1 of 2 steps\n", "")
    assert len(artifacts) == 1
