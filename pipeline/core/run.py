"""What a stage may know of its run, and its parts run in this process or in several."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from pipeline.core.settings import RunSettings
from pipeline.core.warm import die_with_parent


class How:
    """What a stage function may know about its run: settings, the memo's place, a way to report progress.

    `code` is the fingerprint of the instance's code: work in progress is gone on with only by the code that began it.
    """

    def __init__(self, settings: RunSettings, root: Path, label: str, code: str = "") -> None:
        self.settings = settings
        self.memo = root / "data" / ".memo"
        self.checkpoints = root / "data" / ".checkpoints"
        self.curves = root / "data" / ".curves"
        self.label = label
        self.code = code
        self._last = time.monotonic()

    def progress(self, done: int, total: int, note: object = "") -> None:
        """Say how far the work is, at most every five seconds; only then is the note made a text."""
        if time.monotonic() - self._last >= 5 or done == total:
            self._last = time.monotonic()
            print(f"{self.label}: {done} of {total} {note}".rstrip(), file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        print(f"{self.label}: {text}", file=sys.stderr, flush=True)


def run_parts(work: Callable[[int], int], parts: int, settings: RunSettings, imports: Sequence[str]) -> list[int]:
    """Call `work(part)` for every part, here or in processes; returns each part's number of rows.

    Workers are forked after the heavy imports, which are so paid once.
    """
    if settings.executor == "inline" or parts == 1 or settings.workers == 1:
        return [work(part) for part in range(parts)]
    for name in imports:
        importlib.import_module(name)
    global _work
    _work = work
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(settings.workers, parts), context, initializer=die_with_parent) as pool:
        return list(pool.map(_call, range(parts)))


_work: Callable[[int], int] | None = None


def _call(part: int) -> int:
    assert _work is not None
    try:
        return _work(part)
    except KeyboardInterrupt:
        # A pool would take it for this part's failure, and give this worker the next part.
        os._exit(130)
