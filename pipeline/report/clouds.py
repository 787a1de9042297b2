"""Clouds of points that are shown: what a bench asks about, what is true there, and what each model made of noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.report.arms import Lineage
from pipeline.report.tables import Tables
from pipeline.tables.tensors import arrays

POINTS = "points"
# A drawing has so many clouds of so many points at most, of two coordinates each.
MOST, MOST_POINTS = 12, 200


@dataclass(frozen=True)
class Cloud:
    """Points [N, 2] under a name."""

    name: str
    points: np.ndarray


def clouds(lineage: Lineage, tables: Tables) -> list[Cloud]:
    """Of every pool that is judged by points its first item: the truth and what each model made of it, or, where it
    asks about clouds, the first of every class."""
    found: list[Cloud] = []
    for pool in dict.fromkeys(line.pool for line in lineage.lines):
        rows = [row for name in tables.under(f"prompts/{pool}") for row in _of_points(tables, name, "inputs")]
        found += [Cloud(f"{pool}: {name}", points) for name, points in _first_of_each(rows).items()]
        found += _made(lineage, tables, pool)
    return [Cloud(one.name, one.points[:MOST_POINTS, :2]) for one in found[:MOST]]


def _made(lineage: Lineage, tables: Tables, pool: str) -> Iterator[Cloud]:
    """What is true of the first item of a pool, and what each model made of it."""
    true = [row for name in tables.under(f"prompts/{pool}") for row in _of_points(tables, name, "truth")]
    if not true:
        return
    first = min(true, key=lambda row: row["prompt_id"])
    yield Cloud(f"{pool}: true points", first["points"])
    for line in lineage.lines:
        name = f"evals/{line.members[0].name}"
        if line.pool == pool and name in tables.scans:
            made = _of_points(tables, name, "outputs")
            yield from (Cloud(line.name, row["points"]) for row in made if row["prompt_id"] == first["prompt_id"])


def _of_points(tables: Tables, name: str, column: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a table that have points in a column."""
    scan = tables.scans[name]
    named = [c for c in ("prompt_id", "reference") if c in scan.table.columns]
    for batch in scan.batches([*named, column]):
        for row in pa.Table.from_batches([batch]).filter(batch[column].is_valid()).to_pylist():
            points = arrays(row[column]).get(POINTS)
            if isinstance(points, np.ndarray) and points.ndim == 2 and points.shape[1] >= 2:
                yield {**row, "points": points}


def _first_of_each(rows: list[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Class -> the points of its first row, in the order of the classes."""
    found: dict[str, np.ndarray] = {}
    for row in sorted(rows, key=lambda row: row["prompt_id"]):
        found.setdefault(str(row["reference"]), row["points"])
    return dict(sorted(found.items()))
