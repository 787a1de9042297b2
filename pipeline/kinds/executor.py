"""What an executor is: who works on the parts of a stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from pipeline.core.methods import marker
from pipeline.core.parts import Done, Task


class Executor(Protocol):
    """Has parts worked on, here or elsewhere, by as many `Worker`s as it likes.

    A task is names and numbers, so that it can be told to any process that sees the workspace's folders.
    """

    def __call__(self, task: Task, parts: Sequence[int], /) -> Iterator[Done]:
        """What every part came to, each once and in any order. The first error of a part is raised as it is; a part
        whose worker was lost is done again, or ends the run with `TryAgain`."""
        ...


# Traits: `processes`, whether `run.workers` processes of this machine work on the parts.
executor = marker("executor")
