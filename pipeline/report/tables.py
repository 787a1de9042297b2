"""The tables of a run, asked by SQL: rows stay on disk, and what comes here is what a page shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from pipeline.bounded import Limits
from pipeline.core.graph import inside
from pipeline.tables import sql
from pipeline.tables.parquet import Scan


@dataclass(frozen=True)
class Tables:
    """The tables of a run by their folder under `data/`, such as `responses/train/teacher`."""

    scans: Mapping[str, Scan]
    leaves: Mapping[str, sql.Leaf]
    connection: duckdb.DuckDBPyConnection = field(repr=False)

    @classmethod
    def of(cls, data: Path, scans: Iterable[Scan], spill: Path | None = None, limits: Limits = sql.LIMITS) -> Tables:
        """All of these tables; what does not fit the memory goes to the folder `spill`."""
        scans = list(scans)
        folders = {f.relative_to(data).as_posix(): Scan(s.table, (f,)) for s in scans for f in s.folders}
        found = {name: sql.leaves_of([scan], data)[0] for name, scan in folders.items()}
        leaves = list(found.values())
        return cls(folders, found, sql.opened(leaves, None, limits.memory, spill, limits.held))

    def under(self, folder: str) -> list[str]:
        """The tables that are this folder or lie under it."""
        return [name for name in self.scans if inside(name, folder)]

    def source(self, folder: str) -> str | None:
        """All tables under a folder, as SQL after FROM; None if there are none."""
        found = [self.leaves[name].select() for name in self.under(folder)]
        return f"({' UNION ALL '.join(found)})" if found else None

    def rows(self, text: str, *given: Any) -> Iterator[tuple[Any, ...]]:
        """What a text gives, which is as much as a page shows."""
        return iter(self.connection.execute(text, list(given)).fetchall())

    def row(self, text: str, *given: Any) -> tuple[Any, ...]:
        """The one row of an aggregate."""
        return next(self.rows(text, *given))
