"""Bounds: DVC's cache, the memo and checkpoints, each brought below a size by what is missed least."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import ByteSize, TypeAdapter

from pipeline.commands.stored import locked
from pipeline.commands.traces import cache_of, listings, name_of, remove_objects
from pipeline.core.parts import PARTS
from pipeline.core.stage import Plan
from pipeline.memo.memo import Memo
from pipeline.tables.parquet import walk


def size(text: str) -> int:
    """A number of bytes, such as 5GB, as an argument."""
    return int(TypeAdapter(ByteSize).validate_python(text))


def cache(root: Path, most: int) -> Iterator[str]:
    """Remove the oldest objects that the graph as it is does not name, until the others take no more than this."""
    place = cache_of(root)
    inside, files = listings(place), {name_of(place, file): file.stat() for file in walk(place)}
    named = {md5 for outs in locked(root).values() for md5 in outs.values()}
    named |= {md5 for folder in named for md5 in inside.get(folder, ())}
    total, gone = sum(file.st_size for file in files.values()), set[str]()
    for name, file in sorted(files.items(), key=lambda pair: pair[1].st_mtime):
        if total > most and name not in named:
            gone.add(name)
            total -= file.st_size
    count, freed = remove_objects(place, gone)
    yield f"DVC's cache: {count} objects of earlier runs removed, {freed / 1e6:.1f} MB"
    if total > most:
        yield f"  what is left, {total / 1e6:.1f} MB, is the graph as it is"


def memo(kept: Memo, most: int) -> Iterator[str]:
    """Forget the oldest values that this machine can compute again, until the memo takes no more than this."""
    gone = kept.bound(most) if kept.stats().bytes > most else 0
    yield f"memo: {gone} values forgotten that can be computed again"
    if (left := kept.stats().bytes) > most:
        yield f"  what is left, {left / 1e6:.1f} MB, was paid for, or may have been: `stillhouse memo prune --paid`"


def checkpoints(plan: Plan, data: Path, done: set[str]) -> Iterator[str]:
    """Remove checkpoints of trainings that nobody would go on with: they are done, or in the parameters no more."""
    trained = {i.name: i.label for stage in ("train", "distill") for i in plan.of(stage)}
    left = [
        p for p in sorted((data / ".checkpoints").glob("*")) if trained.get(p.name) is None or trained[p.name] in done
    ]
    freed = sum(file.stat().st_size for folder in left for file in walk(folder))
    for folder in left:
        shutil.rmtree(folder)
    yield f"checkpoints: {len(left)} trainings, {freed / 1e6:.1f} MB removed"


def parts(plan: Plan, data: Path) -> Iterator[str]:
    """Remove the parts of runs that did not finish, of instances that are in the parameters no more."""
    known = {f"{i.stage}-{i.name}" for i in plan.instances.values()}
    left = [folder for folder in sorted((data / PARTS).glob("*")) if folder.name not in known]
    freed = sum(file.stat().st_size for folder in left for file in walk(folder))
    for folder in left:
        shutil.rmtree(folder)
    if left:
        yield f"parts of {len(left)} instances that are gone: {freed / 1e6:.1f} MB removed"
