"""Traces: where withdrawn rows lie beside the tables, and how they are removed there.

That is the memo, checkpoints, orphans, rows set aside, logs, and the objects of DVC's cache and run cache on this
machine. An object goes if rows of it name what was withdrawn, or, where it is no table, if an instance wrote it that
reads such rows: weights do not say what they have learnt.
"""

from __future__ import annotations

import html
import json
import mmap
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from dvc.repo import Repo

from pipeline.tables.parquet import walk

MAGIC = b"PAR1"
# What the name of a folder's list ends with.
DIR = ".dir"
# A text that others would hold by chance says nothing.
SHORTEST = 16


@dataclass(frozen=True)
class Traces:
    """By what withdrawn rows are known: the ids that name them, what they say, and the folders and instances that are
    made of them."""

    ids: frozenset[str]
    texts: frozenset[str]
    outputs: frozenset[str]
    instances: frozenset[str]

    def in_table(self, file: Path) -> bool:
        """Whether any text of a table is one of the ids."""
        wanted = pa.array(sorted(self.ids), pa.string())
        opened = pq.ParquetFile(file)
        columns = [field.name for field in opened.schema_arrow if _has_texts(field.type)]
        for batch in opened.iter_batches(columns=columns):
            for texts in (texts for column in batch.columns for texts in _texts(column)):
                if pc.any(pc.is_in(texts, wanted)).as_py():
                    return True
        return False

    def in_bytes(self, file: Path) -> bool:
        """Whether a file of another kind holds one of the texts, as it is or as JSON or HTML writes it. The ids alone
        say nothing: the rules hold them too."""
        if not file.stat().st_size:
            return False
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return any(content.find(needle) >= 0 for needle in self._needles)

    @cached_property
    def _needles(self) -> list[bytes]:
        long = [text for text in self.texts if len(text) >= SHORTEST]
        ways = {w for t in long for w in (t, json.dumps(t)[1:-1], json.dumps(t, ensure_ascii=False)[1:-1])}
        escaped = {html.escape(way, quote) for way in ways for quote in (True, False)}
        return [way.encode() for way in sorted(ways | escaped)]

    def within(self, file: Path) -> bool:
        return self.in_table(file) if is_table(file) else self.in_bytes(file)


def is_table(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(MAGIC)) == MAGIC


def _has_texts(kind: pa.DataType) -> bool:
    if pa.types.is_map(kind):
        return _has_texts(kind.key_type) or _has_texts(kind.item_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _has_texts(kind.value_type)
    return any(_has_texts(field.type) for field in kind) if pa.types.is_struct(kind) else pa.types.is_string(kind)


def _texts(array: pa.Array) -> Iterator[pa.Array]:
    """All texts of a column, at any depth."""
    kind = array.type
    if pa.types.is_string(kind):
        yield array
    elif pa.types.is_map(kind):
        yield from (*_texts(array.keys), *_texts(array.items))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _texts(array.flatten())
    elif pa.types.is_struct(kind):
        for field in array.flatten():
            yield from _texts(field)


def forget_files(data: Path, traces: Traces) -> list[Path]:
    """Remove orphans, rows set aside, logs and half-written folders that hold them, and checkpoints of what is trained
    on them; returns what went."""
    names = sorted({label.partition("@")[2] for label in traces.instances})
    gone = [folder for name in names if (folder := data / ".checkpoints" / name).is_dir()]
    for top in (".orphans", ".quarantine", ".tmp", ".parts", ".runs"):
        gone += [file for file in walk(data / top) if file.suffix != ".lock" and traces.within(file)]
    for path in gone:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return gone


def forget_objects(root: Path, traces: Traces) -> tuple[int, int]:
    """Remove objects and runs from DVC's cache on this machine; returns how many objects and how many bytes."""
    cache = cache_of(root)
    written = {md5 for outs in _locked(root, cache) for path, md5 in outs.items() if path in traces.outputs}
    inside = listings(cache)
    theirs = written | {md5 for folder in written for md5 in inside.get(folder, ())}

    def goes(file: Path) -> bool:
        return traces.in_table(file) if is_table(file) else name_of(cache, file) in theirs or traces.in_bytes(file)

    files = (file for file in walk(cache) if file.suffix != DIR)
    return remove_objects(cache, {name_of(cache, file) for file in files if goes(file)})


def remove_objects(cache: Path, names: Collection[str]) -> tuple[int, int]:
    """Remove objects, lists of folders that name one of them, and kept runs that wrote one; returns how many objects
    and how many bytes."""
    gone = {*names, *(folder for folder, of in listings(cache).items() if of & {*names})}
    files = [cache / name[:2] / name[2:] for name in gone]
    freed = sum(file.stat().st_size for file in files)
    for file in files:
        file.unlink()
    for file in walk(runs_of(cache)):
        if set(_outs(_loaded(file)).values()) & gone:
            file.unlink()
    return len(gone), freed


def listings(cache: Path) -> dict[str, set[str]]:
    """Hash of a folder that the cache knows -> the hashes of its files."""
    files = [file for file in walk(cache) if file.suffix == DIR]
    return {name_of(cache, file): {one["md5"] for one in json.loads(file.read_text("utf-8"))} for file in files}


def runs_of(cache: Path) -> Path:
    """The folder of kept runs, beside that of objects."""
    return cache.parents[1] / "runs"


def cache_of(root: Path) -> Path:
    """The folder of DVC's objects on this machine."""
    with Repo(str(root)) as repo:
        return Path(repo.cache.local.path)


def name_of(cache: Path, file: Path) -> str:
    """The hash that an object is named by."""
    return "".join(file.relative_to(cache).parts)


def _locked(root: Path, cache: Path) -> Iterator[Mapping[str, str]]:
    """Paths and hashes that were ever written: by the lock file here and of every commit, and by kept runs."""
    texts = [(root / "dvc.lock").read_text("utf-8")] if (root / "dvc.lock").exists() else []
    for commit in _git(root, "log", "--all", "--format=%H", "--", "dvc.lock").split():
        texts.append(_git(root, "show", f"{commit}:dvc.lock"))
    for text in texts:
        found = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
        yield from map(_outs, found.get("stages", {}).values())
    yield from (_outs(_loaded(file)) for file in walk(runs_of(cache)))


def _git(root: Path, *arguments: str) -> str:
    # A commit that took the file away has none to show.
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False).stdout


def _loaded(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text("utf-8")) or {}


def _outs(stage: Mapping[str, Any]) -> dict[str, str]:
    return {out["path"]: out["md5"] for out in stage.get("outs", []) if "md5" in out}


def still_in(data: Path, folders: Iterable[str], traces: Traces) -> list[str]:
    """The tables that hold them now."""
    found = (folder for folder in sorted(folders) if (data / folder).is_dir())
    return [folder for folder in found if any(map(traces.within, walk(data / folder)))]


def commands(root: Path, sources: Collection[str], traces: Traces) -> list[str]:
    """What to run, by hand, for what others keep: remotes, experiments, Prefect, git."""
    with Repo(str(root)) as repo:
        remotes = sorted(repo.config["remote"])
    told = [f"dvc gc --workspace --cloud --remote {name}   # all but the graph as it is now" for name in remotes]
    if _git(root, "for-each-ref", "refs/exps"):
        told.append("dvc exp remove --all   # experiments keep tables of their own")
    if any(map(traces.in_bytes, walk(root / "data" / ".prefect"))):
        told.append("prefect server database reset   # records of flows, with what stages said")
    files = sorted(file for file in set(map(file_of, sources)) if _tracked(root, file))
    told += [f"git filter-repo --invert-paths --path {file}   # all commits anew without this file" for file in files]
    return told


def file_of(source: str) -> str:
    """The file of a source such as `mine.jsonl:17`."""
    return source.rpartition(":")[0] or source


def _tracked(root: Path, file: str) -> bool:
    return bool(_git(root, "log", "--all", "--format=%H", "-1", "--", file))
