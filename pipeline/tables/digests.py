"""Hashes of large files that did not change, remembered: a folder of ten gigabytes is read once, not by every command.

As DVC does, a file is taken for unchanged while its size, its time of modification and its inode are.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.tables.parquet import digest, folder_digest, short_hash

# Smaller files are read: that takes no longer than to look here.
LARGE = 1 << 20
# Seconds after which a second edit cannot have the time of the first.
SETTLED_S = 2.0


class Digests:
    """The hashes of files, kept in one JSON."""

    def __init__(self, kept: Path) -> None:
        self._kept = kept
        self._known = self._read()
        self._fresh: dict[str, dict[str, Any]] = {}

    def of(self, file: Path, name: str = "blake2b", algorithm: Callable[[], Any] = short_hash) -> str:
        """The hash of a file's bytes; `name` is the algorithm's."""
        found = self._of(file, name, algorithm)
        self._save()
        return found

    def folder(self, folder: Path) -> str:
        """`folder_digest`, with what is remembered of its files."""
        found = folder_digest(folder, self._of)
        self._save()
        return found

    def _of(self, file: Path, name: str = "blake2b", algorithm: Callable[[], Any] = short_hash) -> str:
        stat = file.stat()
        if stat.st_size < LARGE:
            return digest(file, algorithm)
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        entry = self._known.get(str(file.resolve()), {})
        if entry.get("state") == state and name in entry:
            return entry[name]
        found = digest(file, algorithm)
        if time.time() - stat.st_mtime > SETTLED_S:
            others = entry if entry.get("state") == state else {}
            self._known[str(file.resolve())] = kept = {**others, "state": state, name: found}
            self._fresh[str(file.resolve())] = kept
        return found

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            return json.loads(self._kept.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            # A half-written one costs a second reading.
            return {}

    def _save(self) -> None:
        """Once for all files of a folder, beside what others remembered meanwhile."""
        if not self._fresh:
            return
        self._known = {**self._read(), **self._fresh}
        self._fresh = {}
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._kept.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(self._known, indent=1), "utf-8")
        fresh.replace(self._kept)
