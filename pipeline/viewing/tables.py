"""The tables of a run as they are now, asked in SQL by one child that stays, so that a page need not open them anew."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.bounded import Child, Ended, Limits
from pipeline.contracts import ROLLOUTS, TABLES
from pipeline.tables import rules
from pipeline.tables.sql import LIMITS, shortened

Asked = tuple[str, str, int | None]


class Tables:
    """Answers one SELECT after another; a change of a file, or a child that was ended, begins another one."""

    def __init__(self, data: Path, limits: Limits = LIMITS) -> None:
        self.data, self.limits = data, limits
        self._child: Child[Asked, pa.Table] | None = None
        self._state: list[tuple[str, int, int]] = []
        self._counts: dict[str, int] = {}

    def ask(self, text: str, shown: str | None = None, most: int | None = None) -> pa.Table:
        """What one SELECT says, its first rows if `most` is set; a refusal quotes what is `shown`."""
        self._look()
        if self._child is None:
            self._child = Child(functools.partial(rules.reader, self.data, limits=self.limits), self.limits)
        shown = text if shown is None else shown
        with rules.limited(self.limits, shortened(shown)):
            try:
                return self._child.ask((text, shown, most))
            except (Ended, MemoryError):
                self.end()
                raise

    def rows(self, text: str) -> list[dict[str, Any]]:
        """The rows of one SELECT."""
        return self.ask(text).to_pylist()

    def count(self, text: str, shown: str) -> int:
        """The number that a SELECT of one number says; remembered until a file changes."""
        self._look()
        if text not in self._counts:
            self._counts[text] = self.ask(text, shown)[0][0].as_py()
        return self._counts[text]

    def _look(self) -> None:
        """Forget what was of other files than those that are there now."""
        state = sorted(_files(self.data))
        if state != self._state:
            self.end()
            self._state, self._counts = state, {}

    def end(self) -> None:
        """End the child; the next question begins another one."""
        if self._child is not None:
            self._child.end()
            self._child = None


def literal(word: str) -> str:
    """A text in SQL."""
    return "'" + word.replace("'", "''") + "'"


def _files(data: Path) -> Iterator[tuple[str, int, int]]:
    """What tells the files of all tables from those of another moment."""
    places = [data / name for name in TABLES] + list((data / "models").glob(f"*/{ROLLOUTS.name}"))
    for folder, _, names in (found for place in places for found in os.walk(place)):
        for name in names:
            path = Path(folder, name)
            yield str(path), (file := path.stat()).st_mtime_ns, file.st_size
