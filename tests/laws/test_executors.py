"""Whoever works on parts gives the same: each part once, a part's failure as the run's, and nothing half done."""

from __future__ import annotations

import os
import sys
import threading
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from pipeline.core.methods import find, shipped
from pipeline.core.parts import Done, Task
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance
from pipeline.errors import GateFailed, Refused, TryAgain
from pipeline.executors import local
from pipeline.plan.resolve import resolve

HERE = [name for name in shipped("executor") if name.startswith("local.")]
INLINE, PROCESSES = find("executor", "local.inline").factory, find("executor", "local.processes").factory


class Told:
    """A worker in the place of a real one, which is told by a test what a part comes to."""

    work: Callable[[int], Done]

    def __init__(self, task: Task) -> None:
        assert task.settings.workers == 3

    def __call__(self, part: int) -> Done:
        return Told.work(part)

    def close(self) -> None:
        """Nothing was opened."""

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr(local, "Worker", Told)
    plan = resolve(yaml.safe_load(Path("params.yaml").read_text("utf-8")))
    one = next(i for i in plan.of("score"))
    settings = RunSettings(executor="processes", workers=3)
    return Task(one.to_json(), settings.model_dump_json(), "data", ".", "data/.parts/score-x/0")


@pytest.mark.parametrize("name", HERE)
def test_every_part_is_worked_once(name: str, task: Task) -> None:
    Told.work = staticmethod(lambda part: Done(part, part * part, 0.5))
    done = list(find("executor", name).factory()(task, [1, 2, 5, 6]))
    assert sorted((d.part, d.rows) for d in done) == [(1, 1), (2, 4), (5, 25), (6, 36)]


@pytest.mark.parametrize("name", HERE)
def test_a_refusal_of_one_part_is_that_of_the_run(name: str, task: Task) -> None:
    def work(part: int) -> Done:
        if part == 2:
            raise GateFailed("part 2 is wrong")
        return Done(part, 0)

    Told.work = staticmethod(work)
    with pytest.raises(Refused, match="part 2 is wrong") as refused:
        list(find("executor", name).factory()(task, range(4)))
    assert refused.value.exit_code == 65


def test_parts_are_worked_in_other_processes_only_where_asked(task: Task) -> None:
    Told.work = staticmethod(lambda part: Done(part, os.getpid()))
    assert {d.rows for d in INLINE()(task, range(4))} == {os.getpid()}
    assert os.getpid() not in {d.rows for d in PROCESSES()(task, range(4))}
    assert [d.rows for d in PROCESSES()(task, [0])] == [os.getpid()]


def test_a_killed_worker_is_not_an_empty_part(task: Task) -> None:
    def work(part: int) -> Done:
        if part == 1:
            os._exit(9)
        return Done(part, 0)

    Told.work = staticmethod(work)
    with pytest.raises(TryAgain, match=r"was killed.*run.workers.*is 3.*run this again") as refused:
        list(PROCESSES()(task, range(4)))
    assert refused.value.exit_code == 75


def test_heavy_imports_are_paid_before_the_fork(task: Task) -> None:
    task.__dict__["declared"] = replace(task.declared, imports=("colorsys",))
    sys.modules.pop("colorsys", None)
    threads = threading.active_count()
    Told.work = staticmethod(lambda part: Done(part, int("colorsys" in sys.modules)))
    assert [d.rows for d in PROCESSES()(task, range(3))] == [1, 1, 1]
    assert threading.active_count() == threads


class Cluster:
    """Ray in the place of the real one, which raises this when it is joined."""

    def __init__(self, error: Exception) -> None:
        self.error, self.job_config = error, types.SimpleNamespace(JobConfig=lambda **_: None)

    def init(self, *_: object, **__: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            RuntimeError("Version mismatch: The cluster was started with Ray: 2.59.0"),
            1,
            "cannot be joined: Version mism",
        ),
        (ConnectionError("Failed to connect"), 75, "does not take this run in .Failed to connect.*RAY_AUTH_TOKEN"),
    ],
)
def test_a_cluster_that_cannot_be_joined_says_why(
    error: Exception, code: int, said: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.executors.ray.ray", Cluster(error))
    with pytest.raises(Refused, match=said) as refused:
        list(find("executor", "ray.cluster").factory()(task, [0]))
    assert refused.value.exit_code == code


def test_without_ray_its_extra_is_named(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Refused, match=r"ray\.cluster: `pip install 'stillhouse\[ray\]'`"):
        list(find("executor", "ray.cluster").factory()(task, [0]))


@pytest.mark.parametrize(
    "wrong", [{"address": "ray://head:10001"}, {"address": "head"}, {"cpus": -1}, {"retries": -1}, {"keep_s": 0}]
)
def test_a_cluster_that_is_written_wrong_is_a_fault(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        RunSettings.model_validate({"executor": {"use": "ray.cluster", **wrong}})


def test_what_a_task_tells_is_the_instance(task: Task) -> None:
    """Of every stage that works by part."""
    plan = resolve(yaml.safe_load(Path("params.yaml").read_text("utf-8")))
    for stage in ("score", "read", "generate", "pack", "probe"):
        for instance in plan.of(stage):
            assert Instance.of_json(instance.to_json()) == instance
