"""Status: what `dvc repro` would run now and why, told without DVC and without writing anything.

After an edit of `params.yaml`, `dvc status` names only `plan`, because every other stage depends on a file that `plan`
has not written yet. Here the plan is resolved in memory and the map is walked from it: an instance *must* run if its
own plan, command or files are not what `dvc.lock` says; it *may* run if it reads what another one writes again, and
then runs only if those bytes differ.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline.core.graph import touching
from pipeline.core.stage import Plan
from pipeline.core.workspace import TABLE_FOLDERS, digests
from pipeline.plan.disk import SCHEMA, differing, schema_text
from pipeline.plan.map import entries, makers

PLAN = "data/plan"
State = Literal["clean", "must", "may", "missing"]


@dataclass(frozen=True)
class Standing:
    """How an instance stands, and why: the changed keys or paths, or the instances that it waits for."""

    label: str
    state: State
    why: tuple[str, ...] = ()


def standings(given: Mapping[str, Any], plan: Plan, root: Path) -> list[Standing]:
    """How every instance stands, upstream first; `given` are the parameters that `plan` was resolved from."""
    return list(_Walk(given, plan, root).all())


class _Walk:
    """One walk down the map, with what `dvc.lock` says and what lies on the disk."""

    def __init__(self, given: Mapping[str, Any], plan: Plan, root: Path) -> None:
        self._given, self._root = given, root
        self._entries = entries(given, root)
        lock = root / "dvc.lock"
        self._lock = (yaml.safe_load(lock.read_text("utf-8")) or {}).get("stages", {}) if lock.exists() else {}
        self._planned = {f"{PLAN}/{_place(i.stage, i.name)}": i.to_json() for i in plan.instances.values()}
        self._owned = {root / "data" / i.output for i in plan.instances.values()}
        self._around = {parent for path in self._owned for parent in path.parents}
        self._found: dict[str, Standing] = {}
        self._hashes: dict[Path, str] = {}
        self._digests = digests()

    def all(self) -> Iterator[Standing]:
        for label in self._entries:
            self._found[label] = self._plan() if label == "plan" else self._stands(label)
            yield self._found[label]

    def _plan(self) -> Standing:
        locked = self._lock.get("plan")
        if locked is None:
            return Standing("plan", "must", ("it never ran",))
        entry, deps = self._entries["plan"], {dep["path"]: dep["md5"] for dep in locked["deps"]}
        waits = [m for m in makers(self._entries, "plan") if self._found[m].state in ("must", "may")]
        waited = {out for maker in waits for out in self._entries[maker].outs}
        why = [] if deps.keys() == set(entry.deps) else ["its entry in dvc.yaml"]
        for dep in deps.keys() & set(entry.deps):
            if not any(touching(dep, out) for out in waited) and self._hash(dep) != deps[dep]:
                why.append("the code in pipeline/" if dep == "pipeline" else f"{dep} has changed since it was read")
        why += differing(locked["params"]["params.yaml"], self._given)
        if not why and self._hash(PLAN) != locked["outs"][0]["md5"]:
            why = [f"{PLAN} has changed since it was written"]
        if why or not waits:
            return Standing("plan", "must" if why else "clean", tuple(why))
        return Standing("plan", "may", tuple(waits))

    def _stands(self, label: str) -> Standing:
        entry, locked = self._entries[label], self._lock.get(label)
        if locked is None:
            return Standing(label, "must", ("it never ran",))
        deps = {dep["path"]: dep["md5"] for dep in locked.get("deps", [])}
        outs = {out["path"]: out["md5"] for out in locked.get("outs", [])}
        waits = [m for m in makers(self._entries, label) if m != "plan" and self._found[m].state in ("must", "may")]
        waited = {out for maker in waits for out in self._entries[maker].outs}
        why = [key for dep in entry.deps if dep in self._planned for key in self._changed(label, dep, deps.get(dep))]
        if PLAN in entry.deps and self._planned_hash() != deps.get(PLAN):
            why.append("the plan of another instance")
        if locked["cmd"] != entry.cmd or deps.keys() != set(entry.deps) or outs.keys() != set(entry.outs):
            why.append("its entry in dvc.yaml")
        for dep in entry.deps:
            # What will be written again or restored cannot be compared yet.
            unsure = any(touching(dep, out) for out in waited) or self._lacks(dep)
            if dep not in self._planned and dep != PLAN and dep in deps and not unsure and self._hash(dep) != deps[dep]:
                why.append(f"{dep} has changed since it was read")
        lost = [out for out in entry.outs if not (self._root / out).exists()]
        kept = all(self._in_cache(outs.get(out)) for out in lost)
        if not why:
            changed = [out for out in outs if out not in lost and self._hash(out) != outs[out]]
            why += [f"{out} has changed since it was written" for out in changed]
        if why or (lost and not kept):
            return Standing(label, "must", tuple(why or [f"{out} is missing" for out in lost]))
        if waits:
            return Standing(label, "may", tuple(waits))
        return Standing(label, "missing" if lost else "clean", tuple(lost))

    def _changed(self, label: str, path: str, locked: str | None) -> list[str]:
        """The keys in which an instance's plan differs from the one it last ran with."""
        text = self._planned[path]
        if _md5(text.encode()).hexdigest() == locked:
            return []
        now = json.loads(text)
        stage, _, name = label.partition("@")
        record = self._root / "data" / ".runs" / stage / f"{name or stage}.json"
        # The record says what it ran with; the plan on disk may be of a later edit. A clone has no records.
        ran = json.loads(record.read_text("utf-8"))["plan"] if record.exists() else now
        written = self._root / path
        planned = json.loads(written.read_text("utf-8")) if written.exists() else now
        return differing(ran, now) or differing(planned, now) or ["its plan"]

    def _planned_hash(self) -> str:
        """The hash that `data/plan` will have once it is written."""
        texts = self._planned | {f"{PLAN}/{SCHEMA}": schema_text()}
        listing = [
            {"md5": _md5(text.encode()).hexdigest(), "relpath": path.removeprefix(f"{PLAN}/")}
            for path, text in sorted(texts.items())
        ]
        return _listed(listing)

    def _lacks(self, path: str) -> bool:
        """Whether something under a path is missing that the cache will give back."""
        lost = [s for s in self._found.values() if s.state == "missing"]
        return any(touching(path, out) for s in lost for out in s.why)

    def _in_cache(self, md5: str | None) -> bool:
        return md5 is not None and (self._root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]).exists()

    def _hash(self, path: str) -> str | None:
        """A file's or folder's hash, as DVC writes it, without the tables that `plan` will put aside."""
        place = self._root / path
        if place.is_file():
            return self._file_hash(place)
        if not place.is_dir():
            return None
        files = sorted((f.relative_to(place).as_posix(), f) for f in place.rglob("*") if self._counts(f))
        listing = [{"md5": self._file_hash(file), "relpath": name} for name, file in files]
        return _listed(listing)

    def _counts(self, file: Path) -> bool:
        if not file.is_file():
            return False
        if not file.is_relative_to(self._root):
            return True
        below = file.relative_to(self._root)
        if any(fnmatch.fnmatch(part, p) for part in below.parts for p in self._ignored):
            return False
        if below.parts[0] != "data" or below.parts[1] not in TABLE_FOLDERS or len(below.parts) == len(("data", "", "")):
            return True
        return file.parent in self._around or any(parent in self._owned for parent in file.parents)

    @cached_property
    def _ignored(self) -> list[str]:
        place = self._root / ".dvcignore"
        return place.read_text("utf-8").split() if place.exists() else []

    def _file_hash(self, file: Path) -> str:
        if file not in self._hashes:
            self._hashes[file] = self._digests.of(file, "md5", _md5)
        return self._hashes[file]


def _md5(content: bytes = b"") -> Any:
    return hashlib.md5(content, usedforsecurity=False)


def _listed(listing: list[dict[str, str]]) -> str:
    """The hash of a folder, as DVC makes it of its files'."""
    return _md5(json.dumps(listing).encode()).hexdigest() + ".dir"


def _place(stage: str, name: str) -> str:
    return f"{stage}.json" if stage == name == "report" else f"{stage}/{name}.json"
