"""Tables as a commit has them: dvc.lock says which objects they are, DVC's cache or the workspace holds these."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.commands.traces import cache_of
from pipeline.errors import Refused
from pipeline.tables.parquet import digest, walk

# Name below an output -> the file that holds it.
Files = Mapping[str, Path]


def locked(root: Path, commit: str | None = None) -> dict[str, dict[str, str]]:
    """Label of an instance -> paths of its outputs -> their hashes; as the workspace has it, or a commit."""
    if commit is None:
        file = root / "dvc.lock"
        text = file.read_text("utf-8") if file.exists() else None
    else:
        command = ["git", "show", f"{commit}:dvc.lock"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        text = done.stdout if done.returncode == 0 else None
    if text is None:
        where = "here" if commit is None else f"in the commit {commit}"
        raise Refused(f"there is no dvc.lock {where}; `dvc repro` writes it, and git should keep it")
    found = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    return {
        label: {out["path"]: out["md5"] for out in stage.get("outs", [])}
        for label, stage in found.get("stages", {}).items()
    }


class Stored:
    """What DVC's cache and the workspace hold."""

    def __init__(self, root: Path) -> None:
        self._root, self._cache = root, cache_of(root)
        self._hashes: dict[str, str] = {}

    def files(self, path: str, md5: str) -> Files | None:
        """The files of an output of this hash; None if they are not here."""
        here = self._root / path
        if here.exists() and self._hash(path) == md5:
            return {_below(file, here): file for file in walk(here)} if here.is_dir() else {"": here}
        whole = self._object(md5)
        if not whole.exists():
            return None
        if not md5.endswith(".dir"):
            return {"": whole}
        listed: list[dict[str, Any]] = json.loads(whole.read_text("utf-8"))
        found = {one["relpath"]: self._object(one["md5"]) for one in listed}
        return found if all(file.exists() for file in found.values()) else None

    def _object(self, md5: str) -> Path:
        return self._cache / md5[:2] / md5[2:]

    def _hash(self, path: str) -> str:
        if path not in self._hashes:
            self._hashes[path] = hash_of(self._root / path)
        return self._hashes[path]


def hash_of(place: Path) -> str:
    """The hash of a file or folder as DVC takes it."""
    if place.is_file():
        return digest(place, "md5")
    listing = [{"md5": digest(file, "md5"), "relpath": _below(file, place)} for file in walk(place)]
    listing.sort(key=lambda one: one["relpath"])
    return hashlib.md5(json.dumps(listing).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _below(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()
