"""How far the instances of a run are: side by side on a terminal, and as artifacts for Prefect's pages.

A stage says it in a line, `train@kd: 40 of 200 steps, 12/s, 14 s left`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

LINE = re.compile(r"\S+: (\d+) of (\d+) (.*)")


class Bars:
    """The bars of a run: one for each instance that is running. A context manager; it draws none unless `shown`."""

    def __init__(self, shown: bool) -> None:
        self._drawn = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[told]}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            refresh_per_second=4,
            disable=not shown,
        )

    def __enter__(self) -> Bars:
        if not self._drawn.disable:
            # Lines of the log stand above the bars, and those that the bars show are not among them.
            for handler in logging.getLogger().handlers:
                if isinstance(handler, PrefectConsoleHandler):
                    handler.console = self._drawn.console
                    handler.addFilter(lambda record: not LINE.fullmatch(record.getMessage()))
        self._drawn.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._drawn.stop()

    def of(self, name: str, key: str, log: Callable[[str], None]) -> Bar:
        """The bar of an instance; `key` is that of its artifact, and `log` is given every line too."""
        return Bar(self._drawn, name, key, log)


class Bar:
    """How far one instance is. A context manager: its bar comes with its first line, and goes when it ends."""

    def __init__(self, drawn: Progress, name: str, key: str, log: Callable[[str], None]) -> None:
        self._drawn, self._name, self._key, self._log = drawn, name, key, log
        self._row: TaskID | None = None
        self._artifact: UUID | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._row is not None:
            self._drawn.remove_task(self._row)

    def hear(self, line: str) -> None:
        """A line that the instance said; what says how far it is moves the bar and the artifact."""
        self._log(line)
        if self._row is None:
            self._row = self._drawn.add_task(self._name, total=None, told="")
        found = LINE.fullmatch(line)
        if found is None:
            return
        done, total, told = int(found[1]), int(found[2]), found[0].partition(": ")[2]
        self._drawn.update(self._row, completed=done, total=total, told=told)
        given: dict[str, Any] = {"progress": 100 * done / max(total, 1), "description": told}
        if self._artifact is not None:
            update_progress_artifact(self._artifact, **given)
        elif done < total:  # what is told once, when it is done, needs no artifact
            made = create_progress_artifact(key=self._key, **given)
            assert isinstance(made, UUID)
            self._artifact = made
