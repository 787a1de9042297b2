"""The driver: runs one instance of a stage.

It owns paths, checks, counts, the record and the one rename that makes an output appear whole.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from pipeline.core import withdrawn
from pipeline.core.machine import alone_in
from pipeline.core.parts import PARTS, Done, Task, arguments, asked_by, clear
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance, Stage, stage_named
from pipeline.core.workspace import digests
from pipeline.errors import Refused, TryAgain
from pipeline.tables import ids, parquet

# Another process may hold an instance's lock for as long as a rename takes.
SWEEP_S = 0.5
# What a full disk, a quota and a limit on the size of a file say.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


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
    alone_in(data / ".runs")
    lock = FileLock(data / ".runs" / "locks" / f"{instance.stage}-{instance.name}.lock")
    lock_path = Path(lock.lock_file)
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=SWEEP_S)
    except Timeout as error:
        raise TryAgain(f"{instance.label} is already running ({lock_path} is held). Wait for it, or end it.") from error
    started, cpu = time.time(), os.times()
    place = scratch = data / (PARTS if declared.by == "part" else ".tmp") / f"{instance.stage}-{instance.name}"
    how = How(settings, memo_root, instance.label, instance.code)
    try:
        _sweep(data)
        hashed = digests(data)
        read = {f: hashed.folder(data / f) for fs in instance.inputs.values() for f in fs}
        notes, parts = dict[str, Any](), list[Done]()
        if declared.by == "part":
            # They outlive a run that did not finish, until another makes them of something else.
            scratch = place / ids.digest(instance.to_json(), read)
            clear(scratch)
            parts = _parts(declared, instance, data, scratch, how, notes)
            rows: int | None = sum(part.rows for part in parts)
        else:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            rows = _fill(declared, instance, data, scratch, how, notes)
        target = data / instance.output
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        scratch.replace(target)
        spent = os.times()
        elsewhere = sum(part.cpu_s or 0 for part in parts if part.where)
        record = {
            "stage": instance.stage,
            "instance": instance.name,
            "exactness": declared.exactness,
            "plan": json.loads(instance.to_json()),
            "rows": rows,
            "wall_s": round(time.time() - started, 3),
            "cpu_s": round(sum(spent[:4]) - sum(cpu[:4]) + elsewhere, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "inputs": read,
            "output": hashed.folder(target),
            "notes": notes,
            "parts": [asdict(part) for part in parts],
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
    except parquet.RowError as error:
        raise parquet.RowError(f"{instance.label} gave rows that cannot be kept: {error}") from error
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise Refused(
            f"{instance.label}: there is no room to write its output ({error}). Nothing else was touched: make room, "
            f"and run `dvc repro` again."
        ) from error
    finally:
        how.close()
        if scratch != place and scratch.exists():
            clear(scratch)
        if scratch == place or not any(scratch.glob(parquet.PARTS)):
            shutil.rmtree(place, ignore_errors=True)
        lock.release()


def _sweep(data: Path) -> None:
    """Remove what killed processes left half written: the folders in `.tmp` of instances that nobody runs."""
    for left in (data / ".tmp").glob("*-*"):
        lock = FileLock(data / ".runs" / "locks" / f"{left.name}.lock")
        gone = left.with_name(f"{uuid4().hex}.gone")
        with contextlib.suppress(Timeout, OSError):
            # The lock is held for a rename only: whoever runs the instance now must not take it for a run.
            with lock.acquire(timeout=0):
                left.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def _fill(
    declared: Stage, instance: Instance, data: Path, scratch: Path, how: How, notes: dict[str, Any]
) -> int | None:
    """Call the stage function and write what it gives into the scratch folder."""
    given, tables = arguments(instance, data, how)
    whole = given | tables | {"notes": notes, "out": scratch}
    if declared.by == "tree":
        declared.function(instance.params, **asked_by(declared.function, whole))
        return None
    assert declared.writes is not None
    parts = instance.params.parts_of([*tables.values()]) if "prompt_id" in declared.writes.columns else 1
    batches = declared.function(instance.params, **asked_by(declared.function, whole))
    if rules := instance.known.get("withdrawn"):
        batches = withdrawn.without(batches, rules)
    rows = parquet.write(declared.writes, scratch, parts, batches)
    _end(declared, instance, whole)
    return rows


def _parts(
    declared: Stage, instance: Instance, data: Path, scratch: Path, how: How, notes: dict[str, Any]
) -> list[Done]:
    """Have the parts that are not there worked on, by whom `run.executor` names."""
    given, tables = arguments(instance, data, how)
    # What a stage waits for and does not look at, such as a gate, may be cut otherwise.
    counts = {argument: scan.parts for argument, scan in asked_by(declared.function, tables).items()}
    if len(set(counts.values())) != 1:
        raise Refused(f"{instance.label}: its inputs have different numbers of parts: {counts}")
    count = next(iter(counts.values()))
    names = str(data), str(how.memo.parents[1]), str(scratch)
    task = Task(instance.to_json(), how.settings.model_dump_json(), *names)
    done = task.done()
    if done:
        how.say(f"{len(done)} of {count} parts are there from a run that did not finish")
    missing, silent = sorted({*range(count)} - {part.part for part in done}), True
    for part in how.settings.executor.build()(task, missing) if missing else ():
        done.append(part)
        # What asks or reads tells more than this, by itself; and what was quick need not be told at its end.
        silent = silent and (len(done) > 1 or not how.told)
        if silent and (len(done) < count or how.told):
            how.progress(len(done), count, "parts")
    _end(declared, instance, given | tables | {"notes": notes, "out": scratch})
    return sorted(done, key=lambda part: part.part)


def _end(declared: Stage, instance: Instance, whole: Mapping[str, Any]) -> None:
    """Do what a stage does once all of its parts are there."""
    if declared.ends is not None:
        declared.ends(instance.params, **asked_by(declared.ends, dict(whole)))


def _packages(declared: Stage) -> dict[str, str]:
    found = {}
    for package in ("stillhouse", "pyarrow", "duckdb", "numpy", *declared.imports):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
