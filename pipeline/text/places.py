"""Answers that have a line for each of several places: how well masks and points agree with those that are right."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.tables.graphs import UNKNOWN


def overlap(said: Sequence[str], right: Sequence[str]) -> float | None:
    """The mean over classes of how many places both give it, of those that either does; None where no place of both is
    known. Places that either does not know are not compared."""
    if len(said) != len(right):
        return 0.0
    both = [pair for pair in zip(said, right, strict=True) if UNKNOWN not in pair]
    classes = {name for pair in both for name in pair}
    shares = [sum(a == b == name for a, b in both) / sum(name in pair for pair in both) for name in classes]
    return sum(shares) / len(shares) if shares else None


def point(line: str) -> tuple[float, float] | None:
    """The row and the column that a line says."""
    try:
        row, column = map(float, line.split())
    except ValueError:
        return None
    return (row, column) if math.isfinite(row) and math.isfinite(column) else None


def distances(said: Sequence[str], right: Sequence[str]) -> list[float]:
    """How far each point lies from the right one, in pixels; what is unknown in either is left out, and a line that is
    no point is infinitely far."""
    if len(said) != len(right):
        return [math.inf] * len(right)
    found = []
    for one, other in zip(said, right, strict=True):
        if UNKNOWN not in (one, other):
            ends = point(one), point(other)
            found.append(math.inf if ends[0] is None or ends[1] is None else math.dist(ends[0], ends[1]))
    return found
