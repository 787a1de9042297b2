"""How a stage is run never changes what it gives, and a failure in a worker is a failure of the run."""

from __future__ import annotations

import os
import threading
from concurrent.futures.process import BrokenProcessPool

import pytest

from pipeline.core.run import How, run_parts
from pipeline.core.settings import RunSettings
from pipeline.errors import GateFailed, Refused

INLINE = RunSettings()
THREE = RunSettings(executor="processes", workers=3)


@pytest.mark.parametrize("settings", [INLINE, THREE, RunSettings(executor="processes", workers=1)])
def test_every_part_is_worked_once_and_in_order(settings: RunSettings) -> None:
    assert run_parts(lambda part: part * part, 7, settings, ()) == [0, 1, 4, 9, 16, 25, 36]


def test_parts_are_worked_in_other_processes_only_where_asked() -> None:
    here = os.getpid()
    assert set(run_parts(lambda _: os.getpid(), 4, INLINE, ())) == {here}
    assert here not in run_parts(lambda _: os.getpid(), 4, THREE, ())
    assert run_parts(lambda _: os.getpid(), 1, THREE, ()) == [here]


@pytest.mark.parametrize("settings", [INLINE, THREE])
def test_a_refusal_of_one_part_is_that_of_the_run(settings: RunSettings) -> None:
    def work(part: int) -> int:
        if part == 2:
            raise GateFailed("part 2 is wrong")
        return part

    with pytest.raises(Refused, match="part 2 is wrong") as refused:
        run_parts(work, 4, settings, ())
    assert refused.value.exit_code == 65


def test_a_killed_worker_is_not_an_empty_part() -> None:
    def work(part: int) -> int:
        if part == 1:
            os._exit(9)
        return part

    with pytest.raises(BrokenProcessPool):
        run_parts(work, 4, THREE, ())


def test_heavy_imports_are_paid_before_the_fork() -> None:
    threads = threading.active_count()
    assert run_parts(lambda _: int("colorsys" in __import__("sys").modules), 3, THREE, ("colorsys",)) == [1, 1, 1]
    assert threading.active_count() == threads


def test_progress_is_told_at_the_end(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    how = How(INLINE, tmp_path, "train@kd")  # type: ignore[arg-type]
    for step in range(1, 4):
        how.progress(step, 3, "steps")
    assert capsys.readouterr().err == "train@kd: 3 of 3 steps\n"
