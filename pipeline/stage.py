"""Stages, and the driver that runs one instance of one.

A stage is a function from tables to batches of one table. It opens no file of the graph and does not know whether it
runs inline or in processes. The driver owns paths, checks, counts, the record and the one rename that makes an
output appear whole.

    @stage(writes=SCORES, by="part")
    def score(params: Params, responses: Scan) -> Iterator[pa.RecordBatch]: ...
"""

from __future__ import annotations

import errno
import gc
import importlib
import inspect
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from pipeline import tables
from pipeline.contracts import Table
from pipeline.errors import Refused, TryAgain
from pipeline.execution import How, RunSettings, run_parts
from pipeline.plugins import Method, find
from pipeline.tables import Scan

Exactness = Literal["exact", "repeatable", "recorded"]
NAME = r"^[a-z][a-z0-9_]*$"
# What a full disk, a quota and a limit on the size of a file say.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Use(BaseModel):
    """A method that a parameter names, with validated arguments. Subclasses fix the kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str]
    name: str
    arguments: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check(self) -> Use:
        try:
            method = self.method
        except Refused as error:
            raise PydanticCustomError("method", "{text}", {"text": str(error)}) from error
        unknown = self.arguments.keys() - method.arguments.model_fields.keys()
        if unknown:
            takes = ", ".join(method.arguments.model_fields) or "no parameters"
            text = f"{self.name} has no parameter {', '.join(sorted(map(repr, unknown)))}; it takes {takes}"
            raise PydanticCustomError("method", "{text}", {"text": text})
        filled = method.arguments.model_validate(self.arguments)
        self.arguments.update(filled.model_dump(mode="json"))
        return self

    @property
    def method(self) -> Method:
        return find(self.kind, self.name)

    def build(self) -> Any:
        """The method, made with its arguments."""
        return self.method.factory(**self.method.arguments.model_validate(self.arguments).model_dump())


class UseOrigin(Use):
    kind = "origin"


class UseSource(Use):
    kind = "source"


class UseScorer(Use):
    kind = "scorer"


class UseReader(Use):
    kind = "reader"


class UseSelector(Use):
    kind = "selector"


class UseObjective(Use):
    kind = "objective"


class Choice(BaseModel):
    """Parameters that may name a method: keys that the class does not declare are the method's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, given: Any) -> Any:
        if "use" not in cls.model_fields or not isinstance(given, dict) or not isinstance(given.get("use"), str):
            return given
        names = {field.alias or name for name, field in cls.model_fields.items()}
        own = {k: v for k, v in given.items() if k in names and k != "use"}
        rest = {k: v for k, v in given.items() if k not in names}
        return {**own, "use": {"name": given["use"], "arguments": rest}}


@dataclass(frozen=True)
class Input:
    """What a stage reads: a folder under `data/`, and the table its rows are of, or None for a folder of files."""

    folder: str
    table: Table | None = None
    optional: bool = False


class StageParams(Choice):
    """The parameters of an instance. A subclass says what the instance reads and writes.

    A field named `seed` takes the run's seed unless the section sets it; a field named `instance` is the instance's
    name.
    """

    def inputs(self) -> dict[str, Input]:
        """Argument of the stage function -> what it reads."""
        raise NotImplementedError

    def output(self, instance: str) -> str:
        """The folder under `data/` that the instance writes."""
        raise NotImplementedError

    def methods(self) -> list[Use]:
        """The methods that the parameters name."""
        return [value for value in self.__dict__.values() if isinstance(value, Use)]

    def needs(self) -> dict[str, frozenset[str]]:
        """Name of a model -> what this instance needs of its backend."""
        return {}

    def gives(self) -> frozenset[str]:
        """What the backend of the model that this instance writes gives; nothing if it writes none."""
        return frozenset()

    def check(self, plan: Any) -> list[str]:
        """Faults that show only beside the other instances (`plan.Plan`)."""
        return []


@dataclass(frozen=True)
class Stage:
    """A declared stage: its function, and what the driver must know to run it."""

    name: str
    function: Callable[..., Any]
    params: type[StageParams]
    writes: Table | None
    by: Literal["part", "table", "tree"]
    exactness: Exactness
    imports: tuple[str, ...]
    kinds: tuple[str, ...]


def stage(
    *,
    writes: Table | None,
    by: Literal["part", "table", "tree"],
    exactness: Exactness = "exact",
    imports: tuple[str, ...] = (),
    kinds: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Stage]:
    """Declare a stage. `imports`: heavy packages it needs. `kinds`: kinds of methods that its rows, not its
    parameters, may name, whose code is so part of its identity."""

    def declare(function: Callable[..., Any]) -> Stage:
        module = inspect.getmodule(function)
        assert module is not None
        return Stage(
            name=module.__name__.rsplit(".", 1)[-1],
            function=function,
            params=module.Params,
            writes=writes,
            by=by,
            exactness=exactness,
            imports=imports,
            kinds=kinds,
        )

    return declare


def stage_named(name: str) -> Stage:
    return getattr(importlib.import_module(f"pipeline.stages.{name}"), name)


@dataclass(frozen=True)
class Instance:
    """One resolved instance: what `plan` writes to `data/plan/<stage>/<name>.json`."""

    stage: str
    name: str
    params: StageParams
    inputs: Mapping[str, tuple[str, ...]]
    output: str
    code: str

    @property
    def label(self) -> str:
        return f"{self.stage}@{self.name}"

    def to_json(self) -> str:
        content = {
            "stage": self.stage,
            "instance": self.name,
            "params": self.params.model_dump(mode="json"),
            "inputs": {argument: list(folders) for argument, folders in self.inputs.items()},
            "output": self.output,
            "code": self.code,
        }
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """What is there already is no garbage, and neither are rows: looking through them again and again took an eighth of
    the CPU of 10,000 requests."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(10_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@_seldom_collecting()
def run_instance(instance: Instance, settings: RunSettings, data: Path, memo_root: Path) -> dict[str, Any]:
    """Run one instance and put its output in place by one rename; returns its record."""
    declared = stage_named(instance.stage)
    lock = FileLock(data / ".runs" / "locks" / f"{instance.stage}-{instance.name}.lock")
    lock_path = Path(lock.lock_file)
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TryAgain(f"{instance.label} is already running ({lock_path} is held). Wait for it, or end it.") from error
    started, cpu = time.time(), os.times()
    scratch = data / ".tmp" / f"{instance.stage}-{instance.name}"
    try:
        if scratch.exists():
            shutil.rmtree(scratch)
        scratch.mkdir(parents=True)
        how = How(settings, memo_root, instance.label, instance.code)
        notes: dict[str, Any] = {}
        rows = _fill(declared, instance, data, scratch, how, notes)
        target = data / instance.output
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        scratch.replace(target)
        spent = os.times()
        record = {
            "stage": instance.stage,
            "instance": instance.name,
            "exactness": declared.exactness,
            "plan": json.loads(instance.to_json()),
            "rows": rows,
            "wall_s": round(time.time() - started, 3),
            "cpu_s": round(sum(spent[:4]) - sum(cpu[:4]), 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "inputs": {f: tables.folder_digest(data / f) for fs in instance.inputs.values() for f in fs},
            "output": tables.folder_digest(target),
            "notes": notes,
            "packages": _packages(declared),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "commit": _commit(),
        }
        path = data / ".runs" / instance.stage / f"{instance.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False), "utf-8")
        what = "" if rows is None else f"{rows} rows, "
        how.say(f"{what}{record['wall_s']:.1f} s ({declared.exactness})")
        return record
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise Refused(
            f"{instance.label}: there is no room to write its output ({error}). Nothing else was touched: make room, "
            f"and run `dvc repro` again."
        ) from error
    finally:
        lock.release()


def _fill(
    declared: Stage, instance: Instance, data: Path, scratch: Path, how: How, notes: dict[str, Any]
) -> int | None:
    """Call the stage function and write what it gives into the scratch folder."""
    given: dict[str, Any] = {}
    scans: dict[str, Scan] = {}
    for argument, source in instance.params.inputs().items():
        folders = tuple(data / folder for folder in instance.inputs[argument])
        for folder in folders:
            if not folder.is_dir():
                raise Refused(f"{instance.label}: {folder} is missing. `dvc repro {instance.label}` makes it first.")
        if source.table is None:
            given[argument] = folders[0] if folders else None
        else:
            scans[argument] = Scan(source.table, folders)
    extra = {"how": how, "notes": notes, "name": instance.name, "out": scratch, "data": data}
    wanted = inspect.signature(declared.function).parameters
    given.update({k: v for k, v in extra.items() if k in wanted})

    if declared.by == "tree":
        declared.function(instance.params, **given, **scans)
        return None
    assert declared.writes is not None
    if declared.by == "table":
        # The first input is the pool's own; another, such as a benchmark, may be cut otherwise.
        parts = getattr(instance.params, "parts", None) or next((s.parts for s in scans.values()), 1)
        if "prompt_id" not in declared.writes.columns:
            parts = 1
        return tables.write(declared.writes, scratch, parts, declared.function(instance.params, **given, **scans))

    counts = {argument: scan.parts for argument, scan in scans.items()}
    if len(set(counts.values())) != 1:
        raise Refused(f"{instance.label}: its inputs have different numbers of parts: {counts}")

    def work(part: int) -> int:
        batches: Iterator[pa.RecordBatch] = declared.function(
            instance.params, **given, **{argument: scan.at(part) for argument, scan in scans.items()}
        )
        rows = pa.Table.from_batches(list(batches), schema=declared.writes.schema)  # type: ignore[union-attr]
        tables.write_part(declared.writes, scratch, part, rows)  # type: ignore[arg-type]
        return rows.num_rows

    return sum(run_parts(work, next(iter(counts.values())), how.settings, declared.imports))


def _packages(declared: Stage) -> dict[str, str]:
    found = {}
    for package in ("pyarrow", "duckdb", "numpy", *declared.imports):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
