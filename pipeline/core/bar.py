"""A bar on a terminal: how far a stage is, in place of a line every five seconds."""

from __future__ import annotations

import atexit
import sys

from pipeline.core.methods import lazy
from pipeline.display import printable

console, progress = lazy("rich.console"), lazy("rich.progress")


class Bar:
    """One line of standard error that is drawn again; what else is written meanwhile stands above it."""

    def __init__(self, label: str) -> None:
        # Drawn when something is told: a thread that draws would be lost in a fork.
        self._drawn = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=24),
            progress.TextColumn("{task.fields[told]}", markup=False),
            console=console.Console(stderr=True),
            auto_refresh=False,
            redirect_stdout=sys.stdout.isatty(),  # what goes to a file is not to be drawn
        )
        self._task = self._drawn.add_task(label, told="")
        self._drawn.start()
        atexit.register(self.close)

    def show(self, done: int, total: int, told: str) -> None:
        """Draw it so far."""
        self._drawn.update(self._task, completed=done, total=total, told=printable(told), refresh=True)

    def close(self) -> None:
        """Leave it as it was drawn last, and give the terminal its cursor back."""
        self._drawn.stop()
