"""Verifiers of clouds of points: how far what was made is from what is true, as sets, in the units of the points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.errors import Refused
from pipeline.kinds.verifier import Judged, OfArrays, Verifier, verifier
from pipeline.tables import ids

POINTS, CENTRES = "points", "centres"
UNIT = "units of the points"
# Rows of a table of distances that are made at once.
SOME = 1024


@verifier(judges=(POINTS,), measure="chamfer", unit=UNIT, better="lower")
def chamfer() -> Verifier:
    """The Chamfer distance of two clouds: the mean distance of a point to the nearest of the other cloud, over the
    points of the one and over those of the other, and the mean of both.

    Quantities: there, from what was made; back, from what is true.

    Paper: Fan et al. 2017 (point set generation, arXiv 1612.00603).
    Differs: distances are not squared, and are means, so that clouds of any sizes are compared in the points' units.
    """
    return Chamfer()


@verifier(judges=(POINTS,), measure="sliced_wasserstein", unit=UNIT, better="lower")
def sliced_wasserstein(*, directions: Annotated[int, Field(ge=1)] = 64) -> Verifier:
    """The sliced Wasserstein distance of two clouds: in each of some random directions the mean distance of the n-th
    point of the one to the n-th of the other, in the order along it, and the mean over directions.

    Quantities: modes, of the `centres` that the truth names the share that is the nearest to some of the points.

    Paper: Rabin et al. 2012 (sliced Wasserstein); Bonneel et al. 2015.
    Differs: of order 1; directions are the same for all clouds of one number of coordinates.
    """
    return Sliced(directions)


class Chamfer(OfArrays):
    """See `chamfer`."""

    def judge(self, outputs: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> Judged:
        made, true = _both(outputs, truth)
        there, back = (float(np.concatenate([*_nearest(*pair)]).mean()) for pair in ((made, true), (true, made)))
        return Judged((there + back) / 2, {"there": there, "back": back})


class Sliced(OfArrays):
    """See `sliced_wasserstein`."""

    def __init__(self, directions: int) -> None:
        self.directions = directions

    def judge(self, outputs: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> Judged:
        made, true = _both(outputs, truth)
        way_DF = ids.generator(0, "clouds", self.directions, made.shape[1]).standard_normal(
            (self.directions, made.shape[1])
        )
        way_DF /= np.linalg.norm(way_DF, axis=1, keepdims=True)
        # Between its points a cloud's order statistics are a staircase; both are read where either steps.
        at = np.unique(np.concatenate([np.arange(1, len(each) + 1) / len(each) for each in (made, true)]))
        width = np.diff(at, prepend=0)
        along = (np.sort(each @ way_DF.T, 0)[np.ceil(at * len(each) - 1e-9).astype(int) - 1] for each in (made, true))
        distance = float((width @ np.abs(np.subtract(*along))).mean())
        return Judged(distance, _modes(made, truth))


def _modes(made: np.ndarray, truth: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The share of the centres that have a point of their own."""
    if CENTRES not in truth:
        return {}
    centres = truth[CENTRES]
    nearest = np.linalg.norm(made[:, None] - centres, axis=2).argmin(1)
    return {"modes": len(set(nearest.tolist())) / len(centres)}


def _nearest(points: np.ndarray, others: np.ndarray) -> list[np.ndarray]:
    """The distance of every point to the nearest of the others, some points at a time."""
    starts = range(0, len(points), SOME)
    return [np.linalg.norm(points[at : at + SOME, None] - others, axis=2).min(1) for at in starts]


def _both(outputs: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Both clouds [N, F], in wide numbers."""
    for whose, given in (("what was made", outputs), ("the truth", truth)):
        if POINTS not in given or given[POINTS].ndim != 2 or not len(given[POINTS]):
            raise Refused(f"{whose} has no array {POINTS!r} with a row of numbers for each point")
    made, true = (given[POINTS].astype(np.float64) for given in (outputs, truth))
    if made.shape[1] != true.shape[1]:
        raise Refused(f"points of {made.shape[1]} numbers were made, and those of the truth have {true.shape[1]}")
    return made, true
