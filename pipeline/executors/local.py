"""Parts on this machine, in this process or in several."""

from __future__ import annotations

import importlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.util import Finalize

from pipeline.core.parts import Done, Task, Worker
from pipeline.core.warm import die_with_parent
from pipeline.errors import TryAgain
from pipeline.kinds.executor import Executor, executor


@executor(processes=False)
def inline() -> Executor:
    """One part after another, in this process.

    Paper: none.
    Differs: nothing.
    """

    def work(task: Task, parts: Sequence[int]) -> Iterator[Done]:
        with Worker(task) as worker:
            yield from map(worker, parts)

    return work


@executor(processes=True)
def processes() -> Executor:
    """`run.workers` parts at a time, each in a process of its own, which is forked after the heavy imports: these are
    paid once.

    Paper: none.
    Differs: nothing.
    """

    def work(task: Task, parts: Sequence[int]) -> Iterator[Done]:
        workers = min(task.settings.workers, len(parts))
        if workers < 2:
            yield from inline()(task, parts)
            return
        for name in task.declared.imports:
            importlib.import_module(name)
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(task,)) as pool:
            try:
                yield from pool.map(_work, parts)
            except BrokenProcessPool as error:
                raise TryAgain(
                    f"{task.instance.label}: a process that worked on a part was killed, perhaps for want of memory "
                    f"(`run.workers` is {task.settings.workers}). The parts that are done are kept: run this again."
                ) from error

    return work


# The worker of this process, if it is one of a pool.
_worker: Worker | None = None


def _begin(task: Task) -> None:
    global _worker
    die_with_parent()
    _worker = Worker(task)
    Finalize(None, _worker.close, exitpriority=0)


def _work(part: int) -> Done:
    assert _worker is not None
    try:
        return _worker(part)
    except KeyboardInterrupt:
        # A pool would take it for this part's failure, and give this worker the next part.
        os._exit(130)
