"""What a stage may know of its run, and the words in which it tells how far it is."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from pipeline.core.bar import Bar
from pipeline.core.settings import RunSettings
from pipeline.display import duration

T = TypeVar("T")


class How:
    """What a stage function may know about its run: settings, the memo's place, a way to report progress.

    `code` is the fingerprint of the instance's code: work in progress is gone on with only by the code that began it.
    `opened` is what a worker has opened for all of its parts, if it has several.
    """

    def __init__(
        self, settings: RunSettings, root: Path, label: str, code: str = "", opened: ExitStack | None = None
    ) -> None:
        self.settings = settings
        self.memo = root / "data" / ".memo"
        self.checkpoints = root / "data" / ".checkpoints"
        self.curves = root / "data" / ".curves"
        self.label = label
        self.code = code
        self._last = time.monotonic()
        # When the work began, and what was done of it by then: a training may go on where it stopped.
        self._begun: tuple[float, int, int] | None = None
        self.told = False
        self._bar: Bar | None = None
        self._process = os.getpid()
        self._speaks = True
        self._opened, self._kept = opened, dict[Path, Any]()

    def once(self, what: Path, opening: Callable[[], AbstractContextManager[T]]) -> AbstractContextManager[T]:
        """What is opened of a folder, such as a model: by a worker once for all of its parts."""
        if self._opened is None:
            return opening()
        if what not in self._kept:
            self._kept[what] = self._opened.enter_context(opening())
        return nullcontext(self._kept[what])

    def taken_over(self, *, speaks: bool) -> None:
        """Go on in this process, forked from the one that began: as the one that speaks, or in silence."""
        self._process, self._speaks = os.getpid(), speaks

    def progress(self, done: int, total: int, note: object = "") -> None:
        """Say how far the work is: on a terminal by a bar, elsewhere by a line, at most every five seconds.

        Only then is the note made a text.
        """
        if not self._speaks:
            return
        now = time.monotonic()
        if self._begun is None or self._begun[2] != total or self._begun[1] > done:
            self._begun = (now, done, total)
        terminal = self._bar is not None or sys.stderr.isatty()
        if done < total and now - self._last < (0.25 if terminal else 5):
            return
        self._last, self.told = now, True
        told = f"{done} of {total} {note}".rstrip() + self._pace(done, total, now, str(note))
        if not terminal:
            print(f"{self.label}: {told}", file=sys.stderr, flush=True)
        elif os.getpid() == self._process:  # workers share the terminal; their parts are counted here
            self._bar = self._bar or Bar(self.label)
            self._bar.show(done, total, told)

    def _pace(self, done: int, total: int, now: float, note: str) -> str:
        """How much is done a second and what is left of the time, unless the note has said so."""
        assert self._begun is not None
        seconds, some = now - self._begun[0], done - self._begun[1]
        if note.endswith(" left") or done == total or not some or not seconds:
            return ""
        return f", {some / seconds:.3g}/s, {duration(seconds / some * (total - done))} left"

    def close(self) -> None:
        """Leave the terminal to others."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def say(self, text: str) -> None:
        if self._speaks:
            print(f"{self.label}: {text}", file=sys.stderr, flush=True)
