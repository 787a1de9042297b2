"""Verifiers of answers with a line for each pixel or for each point of a picture."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat

from pipeline.kinds.verifier import Verifier, verifier
from pipeline.tables.graphs import UNKNOWN
from pipeline.text.places import distances, overlap, point


@verifier()
def pixels(*, least: Annotated[float, Field(ge=0, le=1)] = 0.5) -> Verifier:
    """The class of every pixel, a line each, row after row; right if the intersection over union, as the mean over
    classes, is at least so much. `places.iou` says how large it is.

    Paper: Everingham et al. 2010 (PASCAL VOC), the measure of segmentation.
    Differs: the mean is over the classes of one picture, and `?` is not compared.
    """
    return Pixels(least)


@verifier(by_place=True)
def points(*, within: NonNegativeFloat = 1.5) -> Verifier:
    """Where each point of a figure lies, a line of row and column each; right if it is within so many pixels, and all
    are if there are several. `?` is not compared. `places.distance` says how far they are off.

    Paper: Yang & Ramanan 2013 (articulated human detection), the percentage of correct key points.
    Differs: a distance in pixels, and not a share of the figure's size.
    """
    return Points(within)


class Pixels:
    """See `pixels`."""

    def __init__(self, least: float) -> None:
        self.least = least

    def parse(self, text: str) -> str | None:
        lines = [line.strip() for line in text.strip().split("\n")]
        return "\n".join(lines) if all(lines) else None

    def read(self, text: str) -> str | None:
        return self.parse(text)

    def equal(self, answer: str, reference: str) -> bool:
        if not answer or not reference:
            return False
        shared = overlap(answer.split("\n"), reference.split("\n"))
        return answer == reference if shared is None else shared >= self.least


class Points:
    """See `points`."""

    def __init__(self, within: float) -> None:
        self.within = within

    def parse(self, text: str) -> str | None:
        lines = [" ".join(line.split()) for line in text.strip().split("\n")]
        return "\n".join(lines) if all(line == UNKNOWN or point(line) for line in lines) else None

    def read(self, text: str) -> str | None:
        return self.parse(text)

    def equal(self, answer: str, reference: str) -> bool:
        said, right = answer.split("\n"), reference.split("\n")
        return self.parse(answer) is not None and all(d <= self.within for d in distances(said, right))
