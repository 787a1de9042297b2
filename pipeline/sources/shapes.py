"""Pictures with a class, drawn by a procedure: what a small network learns to name in seconds."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.source import GivenRow, Rows, source
from pipeline.tables import ids
from pipeline.tables.graphs import UNKNOWN

Share = Annotated[float, Field(ge=0, le=1)]
Shape = Literal["square", "frame", "disc", "ring", "cross", "saltire", "bars", "columns", "triangle", "diamond"]
Style = Literal["plain", "negative", "gradient", "thin"]
SHAPES: tuple[Shape, ...] = (
    "square", "frame", "disc", "ring", "cross", "saltire", "bars", "columns", "triangle", "diamond",
)  # fmt: skip
INK, PAPER = 200.0, 40.0


@source(verifiers=("text.exact",))
def one(
    *,
    rows: PositiveInt,
    seed: int,
    size: Annotated[int, Field(ge=8, le=64)] = 12,
    channels: Literal[1, 3] = 1,
    shapes: Annotated[tuple[Shape, ...], Field(min_length=2)] = SHAPES,
    styles: Annotated[tuple[Style, ...], Field(min_length=1)] = ("plain",),
    shift: NonNegativeInt = 1,
    noise: NonNegativeFloat = 20.0,
    tail: Annotated[float, Field(gt=0, le=1)] = 1.0,
    kinds: PositiveInt | None = None,
    labelled: Share = 1.0,
    slip: Share = 0.0,
) -> Rows:
    """One shape in a picture, in grey or colours, with numbers from 0 to 255; the class is its name.

    The domain is the style that it is drawn in. It lies up to `shift` pixels off the middle in either direction, and
    `noise` is the standard deviation of what is added to each number. With `tail` the last of the `shapes` is that many
    times as frequent as the first, and those between follow geometrically. With `kinds` the class is no name but one of
    so many (`kind 0`, ...), each of which several shapes share. The solution of a share of `labelled` rows is a class,
    of others `?`, which is none; that of a share of `slip` is another than the reference. The pictures depend on none
    of these.

    Paper: none; the task was made for this demonstration.
    Differs: nothing to differ from.
    """
    if kinds is not None and kinds > len(shapes):
        raise Refused(f"shapes.one: {len(shapes)} shapes are not {kinds} kinds; write at most so many")
    names = list(shapes) if kinds is None else [f"kind {i}" for i in range(kinds)]
    odds = tail ** (np.arange(len(shapes)) / (len(shapes) - 1))
    for number in range(rows):
        dice = ids.generator(seed, "shapes.one", number)
        which = int(dice.choice(len(shapes), p=odds / odds.sum()))
        style = styles[int(dice.integers(len(styles)))]
        image = _drawn(shapes[which], style, size, channels, shift, noise, dice)
        name = names[which % len(names)]
        others = [other for other in names if other != name]
        wrong = ids.draw(seed, "slip", number) < slip and others
        solution = others[int(len(others) * ids.draw(seed, "wrong", number))] if wrong else name
        yield GivenRow(
            f"shapes.one seed {seed} row {number}",
            {
                "inputs": {"image": image},
                "domain": style,
                "verifier": "text.exact",
                "reference": name,
                "solution": solution if ids.draw(seed, "labelled", number) < labelled else UNKNOWN,
            },
        )


@source(verifiers=("text.exact",))
def pair(
    *,
    rows: PositiveInt,
    seed: int,
    size: Annotated[int, Field(ge=8, le=64)] = 12,
    channels: Literal[1, 3] = 1,
    things: Annotated[tuple[Shape, ...], Field(min_length=2)] = ("square", "disc", "triangle", "cross"),
    grounds: Annotated[tuple[Shape, ...], Field(min_length=2)] = ("bars", "columns"),
    view: Literal["both", "thing", "ground"] = "both",
    shift: NonNegativeInt = 1,
    noise: NonNegativeFloat = 20.0,
    slip: Share = 0.0,
) -> Rows:
    """A thing and what is around it, side by side in one picture, or with a `view` one of them alone; the class names
    both, so neither alone tells it. The domain is the ground.

    The two are drawn as `shapes.one` draws shapes. The solution of a share of `slip` is another class than the
    reference. Classes and pictures do not depend on the view.

    Paper: none; the task was made for this demonstration.
    Differs: nothing to differ from.
    """
    names = [f"{thing} on {ground}" for thing in things for ground in grounds]
    for number in range(rows):
        dice = ids.generator(seed, "shapes.pair", number)
        thing, ground = (of[int(dice.integers(len(of)))] for of in (things, grounds))
        drawn = [_drawn(shape, "plain", size, channels, shift, noise, dice) for shape in (thing, ground)]
        shown = {"both": drawn, "thing": drawn[:1], "ground": drawn[1:]}[view]
        name = f"{thing} on {ground}"
        others = [other for other in names if other != name]
        wrong = ids.draw(seed, "slip", number) < slip
        yield GivenRow(
            f"shapes.pair seed {seed} row {number}",
            {
                "inputs": {"image": np.concatenate(shown, 1)},
                "domain": ground,
                "verifier": "text.exact",
                "reference": name,
                "solution": others[int(len(others) * ids.draw(seed, "wrong", number))] if wrong else name,
            },
        )


def _drawn(
    shape: str, style: str, size: int, channels: int, shift: int, noise: float, dice: np.random.Generator
) -> np.ndarray:
    """The picture, [size, size, channels]."""
    radius = dice.uniform(0.28, 0.42) * size
    middle_2 = (size - 1) / 2 + dice.integers(-shift, shift + 1, 2)
    y, x = (np.abs(a) for a in np.meshgrid(*(np.arange(size) - m for m in middle_2), indexing="ij"))
    below = np.broadcast_to((np.arange(size) - middle_2[0])[:, None], (size, size))
    line = size / (20 if style == "thin" else 10)
    striped_S = np.arange(size) // max(1, round(line)) % 2 == 0
    square, far = np.maximum(x, y), np.hypot(x, y)
    inside = square <= radius
    drawn = {
        "square": inside,
        "frame": inside & (square > radius - 2 * line),
        "disc": far <= radius,
        "ring": (far <= radius) & (far > radius - 2 * line),
        "cross": inside & (np.minimum(x, y) <= line),
        "saltire": inside & (np.abs(x - y) <= 1.4 * line),
        "bars": inside & striped_S[:, None],
        "columns": inside & striped_S[None, :],
        "triangle": (np.abs(below) <= radius) & (x <= (below + radius) / 2),
        "diamond": x + y <= radius,
    }[shape]
    colour = 1 if channels == 1 else dice.uniform(0.5, 1.0, 3)
    ink = PAPER + (INK - PAPER) * drawn[:, :, None] * colour
    if style == "negative":
        ink = 255 - ink
    if style == "gradient":
        ink = ink + np.linspace(-60, 60, size)[:, None, None]
    return np.clip(ink + noise * dice.standard_normal((size, size, channels)), 0, 255).round().astype(np.uint8)
