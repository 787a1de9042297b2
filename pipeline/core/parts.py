"""The parts of an instance: what is told of the work, and a worker that does it part by part.

A part is written aside and appears by a rename, so what stands in its place is whole, whoever made it and however that
ended: a run that is begun again goes on with the parts that are there.
"""

from __future__ import annotations

import inspect
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pyarrow as pa

from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance, Stage, stage_named
from pipeline.errors import Refused
from pipeline.tables import parquet
from pipeline.tables.parquet import Scan

# Where they lie until all of a table are there, `<stage>-<instance>/<what they are made of>`.
PARTS = ".parts"


@dataclass(frozen=True)
class Done:
    """What a part came to. `cpu_s` is None where it was there before; `where` names the machine if it is another."""

    part: int
    rows: int
    cpu_s: float | None = None
    where: str = ""


@dataclass(frozen=True)
class Task:
    """The work on the parts of an instance, in names and numbers.

    `plan` is what `plan` says of the instance and `run` the settings, both as JSON; `data` and `root` (whose the memo
    is) are folders, and parts appear in `scratch`. Paths are relative to the workspace.
    """

    plan: str
    run: str
    data: str
    root: str
    scratch: str

    @cached_property
    def instance(self) -> Instance:
        """Whose parts they are."""
        return Instance.of_json(self.plan)

    @cached_property
    def declared(self) -> Stage:
        """The stage that makes them."""
        return stage_named(self.instance.stage)

    @cached_property
    def settings(self) -> RunSettings:
        """How it is run."""
        return RunSettings.model_validate_json(self.run)

    def __reduce__(self) -> tuple[Any, ...]:
        # What is read from the names is read anew by whoever is told them.
        return Task, (self.plan, self.run, self.data, self.root, self.scratch)

    def done(self) -> list[Done]:
        """The parts that are there."""
        files = sorted(Path(self.scratch).glob(parquet.PARTS))
        return [Done(int(file.stem.rpartition("-")[2]), parquet.rows_of(file)) for file in files]


class Worker:
    """Works on parts of a task, one after another; what is opened for one, such as a model, serves the next."""

    def __init__(self, task: Task) -> None:
        self.task, self.opened = task, ExitStack()
        instance = task.instance
        self.how = How(task.settings, Path(task.root), instance.label, instance.code, self.opened)

    @cached_property
    def given(self) -> dict[str, Any]:
        """What the stage function may ask for, of all parts."""
        given, tables = arguments(self.task.instance, Path(self.task.data), self.how)
        return given | tables

    def __call__(self, part: int) -> Done:
        """Make a part and put it in its place."""
        declared, scratch = self.task.declared, Path(self.task.scratch)
        assert declared.writes is not None
        before = _cpu_s()
        aside = scratch.with_name(f"{part:05d}-{uuid4().hex[:16]}")
        aside.mkdir(parents=True)
        try:
            own = {name: value.at(part) for name, value in self.given.items() if isinstance(value, Scan)}
            given = asked_by(declared.function, {**self.given, **own, "out": aside})
            batches: Iterator[pa.RecordBatch] = declared.function(self.task.instance.params, **given)
            rows = parquet.write_part(declared.writes, aside, part, batches)
            file = aside / parquet.part_name(part)
            with file.open("rb") as written:
                os.fsync(written.fileno())
            file.replace(scratch / file.name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return Done(part, rows, round(_cpu_s() - before, 3))

    def close(self) -> None:
        """Close what was opened."""
        self.opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cpu_s() -> float:
    """The CPU that this process and those that it has ended have taken."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def arguments(instance: Instance, data: Path, how: How) -> tuple[dict[str, Any], dict[str, Scan]]:
    """What a stage function may ask for beside its parameters, and the tables that the instance reads."""
    given: dict[str, Any] = {}
    tables: dict[str, Scan] = {}
    for argument, source in instance.params.inputs().items():
        folders = tuple(data / folder for folder in instance.inputs[argument])
        for folder in folders:
            if not folder.is_dir():
                raise Refused(f"{instance.label}: {folder} is missing. `dvc repro {instance.label}` makes it first.")
        if source.table is None:
            given[argument] = folders[0] if folders else None
        else:
            tables[argument] = Scan(source.table, folders)
    return given | {"how": how, "name": instance.name, "data": data}, tables


def asked_by(function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """What a function names of what it may have: what a stage only waits for, such as a gate, it does not name."""
    asked = inspect.signature(function).parameters
    return {argument: value for argument, value in given.items() if argument in asked}


def clear(scratch: Path) -> None:
    """Clear the place of an instance's parts of all but what is in `scratch` and whole: of what was begun, and of parts
    that were made of other inputs or by other code."""
    scratch.mkdir(parents=True, exist_ok=True)
    for other in (*scratch.parent.iterdir(), *scratch.iterdir()):
        if other != scratch and not (other.parent == scratch and other.match(parquet.PARTS)):
            shutil.rmtree(other) if other.is_dir() else other.unlink()
