"""Pictures with a class, drawn by a procedure: what a small network learns to name in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.source import GivenRow, Rows, source
from pipeline.tables import ids
from pipeline.tables.graphs import UNKNOWN
from pipeline.text import scenes
from pipeline.text.scenes import COLOURS, FORMS, Thing

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


Verb = Literal["count", "colour", "shape", "more", "left"]
Many = Annotated[int, Field(ge=2, le=3)]
# Pixels of a place of the grid, in either direction.
PLACE = 6
CLASSES = ("background", *FORMS)


@source(verifiers=("dense.pixels", "text.line", "programs.answer"))
def scene(
    *,
    rows: PositiveInt,
    seed: int,
    ask: Literal["pixels", "caption", "question"] = "pixels",
    grid: Many = 2,
    least: PositiveInt = 1,
    most: PositiveInt = 4,
    noise: NonNegativeFloat = 20.0,
    verbs: Annotated[tuple[Verb, ...], Field(min_length=1)] = ("count", "colour", "shape", "more", "left"),
    program: bool = False,
    slip: Share = 0.0,
) -> Rows:
    """Several things on a grid, in colours: forms of 5 x 5 pixels, somewhere in places of 6 x 6.

    `ask: pixels` is about the form at every pixel, `caption` about all that is shown, in words, and `question` about
    what one of the programs of `verbs` says of the scene (`text/scenes.py`); with `program` the solution is the program
    and what it says. A share of `slip` solutions are those of another scene, or of another program on the same; the
    pictures do not depend on it. `truth` holds the mask of all pixels and the boxes: class, first row and column, last
    row and column.

    Paper: none; the task was made for this demonstration, after Johnson et al. 2017 (CLEVR, arXiv 1612.06890).
    Differs: nothing to differ from.
    """
    _few(least, most, grid, "shapes.scene")
    for number in range(rows):
        dice = ids.generator(seed, "shapes.scene", number)
        things = _things(dice, grid, least, most)
        image, mask, boxes = _pictured(things, grid, noise, dice)
        slips, other = ids.draw(seed, "slip", number) < slip, ids.generator(seed, "shapes.scene other", number)
        told = _things(other, grid, least, most) if slips else things
        row: dict[str, object] = {"inputs": {"image": image}, "truth": {"mask": mask, "boxes": boxes}, "domain": ask}
        if ask == "pixels":
            right, said = (_lines(m) for m in (mask, _pictured(told, grid, noise, other)[1] if slips else mask))
            row |= {"verifier": "dense.pixels", "reference": right, "solution": said}
        elif ask == "caption":
            right, said = (scenes.caption(some, grid) for some in (things, told))
            row |= {"messages": _asked("what is shown?"), "verifier": "text.line", "reference": right, "solution": said}
        else:
            asked = _program(dice, verbs, things)
            meant = _program(other, verbs, things) if slips else asked
            answer = scenes.run(meant, things)
            row |= {
                "messages": _asked(scenes.question(asked)),
                "domain": asked.split()[0],
                "verifier": "programs.answer",
                "reference": f"{scenes.run(asked, things)} | {scenes.written(things)}",
                "solution": f"{meant} = {answer}" if program else answer,
            }
        yield GivenRow(f"shapes.scene seed {seed} row {number}", row)


@source(verifiers=("graph.nodes",))
def scanned(
    *,
    rows: PositiveInt,
    seed: int,
    grid: Many = 2,
    least: PositiveInt = 1,
    most: PositiveInt = 4,
    noise: NonNegativeFloat = 20.0,
    points: Annotated[int, Field(ge=8)] = 72,
    rough: NonNegativeFloat = 0.1,
    areas: Annotated[int, Field(ge=2)] | None = None,
    labelled: Share = 1.0,
) -> Rows:
    """Scenes as `shapes.scene` draws them, and points of them, which have no colour: where each lies, from -1 to 1, and
    how high, 1 on a thing and 0 beside it, with `rough` as the standard deviation of what is added to each number.

    The answer is a line for each point, which form it lies on. With `areas` the picture is cut into so many in either
    direction, by colour and place, and the answer has a line for each area that has points: what most of them lie on.
    Of a share of `labelled` rows the solution says it, of others `?`. Pictures and points depend on neither.

    Paper: none; the task was made for this demonstration, after Sautier et al. 2022 (SLidR, arXiv 2203.16258).
    Differs: nothing to differ from.
    """
    _few(least, most, grid, "shapes.scanned")
    size = PLACE * grid
    for number in range(rows):
        dice = ids.generator(seed, "shapes.scanned", number)
        image, mask, _ = _pictured(_things(dice, grid, least, most), grid, noise, dice)
        pixel = dice.permutation(np.resize(dice.permutation(size * size), points)).astype(np.int32)
        class_P = mask.flatten()[pixel]
        at = np.stack(np.divmod(pixel, size), 1) + dice.random((points, 2))
        made = np.column_stack([2 * at / size - 1, class_P > 0]) + rough * dice.standard_normal((points, 3))
        inputs = {"image": image, "points": made.astype(np.float32), "pixel": pixel}
        place_P = np.arange(points)
        if areas is not None:
            inputs["areas"] = _areas(image, areas)
            place_P = np.unique(inputs["areas"].flatten()[pixel], return_inverse=True)[1]
        counts = np.zeros((int(place_P.max()) + 1, len(CLASSES)), int)
        np.add.at(counts, (place_P, class_P), 1)
        lines = [CLASSES[most_often] for most_often in counts.argmax(1)]
        said = lines if ids.draw(seed, "labelled", number) < labelled else [UNKNOWN] * len(lines)
        yield GivenRow(
            f"shapes.scanned seed {seed} row {number}",
            {
                "inputs": inputs,
                "domain": "points" if areas is None else "areas",
                "verifier": "graph.nodes",
                "reference": "\n".join(lines),
                "solution": "\n".join(said),
            },
        )


def _areas(image: np.ndarray, across: int) -> np.ndarray:
    """The area of each pixel, [H, W]: k-means of where it lies and of its colour, which begin on a grid of so many."""
    size = len(image)
    down, right = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    seen_MD = np.column_stack([down.flatten(), right.flatten(), image.reshape(size * size, 3) * (size / across / 40)])
    middle = ((np.arange(across) + 0.5) * size / across).astype(int)
    centre_KD = seen_MD[(middle[:, None] * size + middle).flatten()]
    for _ in range(5):
        area_M = np.square(seen_MD[:, None] - centre_KD).sum(2).argmin(1)
        there = np.bincount(area_M, minlength=len(centre_KD))
        total = np.zeros_like(centre_KD)
        np.add.at(total, area_M, seen_MD)
        centre_KD = np.where(there[:, None] > 0, total / np.maximum(there, 1)[:, None], centre_KD)
    return area_M.reshape(size, size).astype(np.int32)


@source(verifiers=("shapes.caption",))
def drawing(
    *,
    rows: PositiveInt,
    seed: int,
    grid: Many = 2,
    least: PositiveInt = 1,
    most: PositiveInt = 2,
    slip: Share = 0.0,
) -> Rows:
    """Captions to be drawn in letters: a line for each row of pixels, `.` for nothing, colours by their initials.

    The solution of a share of `slip` rows draws another scene.

    Paper: none; the task was made for this demonstration.
    Differs: nothing to differ from.
    """
    _few(least, most, grid, "shapes.drawing")
    for number in range(rows):
        dice = ids.generator(seed, "shapes.drawing", number)
        things = _things(dice, grid, least, most)
        told = _things(dice, grid, least, most) if ids.draw(seed, "slip", number) < slip else things
        words = scenes.caption(things, grid)
        yield GivenRow(
            f"shapes.drawing seed {seed} row {number}",
            {
                "messages": _asked(words),
                "domain": f"{len(things)} things",
                "verifier": "shapes.caption",
                "reference": words,
                "solution": scenes.drawn(told, grid),
            },
        )


def _few(least: int, most: int, grid: int, name: str) -> None:
    if not least <= most <= grid * grid:
        raise Refused(f"{name}: {least} to {most} things do not lie on {grid * grid} places; ask for other numbers")


def _asked(words: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": words}]


def _things(dice: np.random.Generator, grid: int, least: int, most: int) -> list[Thing]:
    """So many things, each at a place of its own."""
    places = dice.choice(grid * grid, int(dice.integers(least, most + 1)), replace=False)
    colours, forms = list(COLOURS), list(FORMS)
    return [
        Thing(colours[dice.integers(len(colours))], forms[dice.integers(len(forms))], int(p) // grid, int(p) % grid)
        for p in sorted(places)
    ]


def _pictured(
    things: list[Thing], grid: int, noise: float, dice: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The picture [H, W, 3], the class of every pixel [H, W], and the boxes [things, 5]."""
    size = PLACE * grid
    image, mask, boxes = np.full((size, size, 3), PAPER), np.zeros((size, size), np.uint8), []
    for thing in things:
        form, (down, across) = FORMS[thing.form], dice.integers(0, 2, 2)
        top, left = PLACE * thing.row + int(down), PLACE * thing.column + int(across)
        place = slice(top, top + len(form)), slice(left, left + len(form))
        image[place][form] = COLOURS[thing.colour]
        mask[place][form] = CLASSES.index(thing.form)
        boxes.append([CLASSES.index(thing.form), top, left, top + len(form) - 1, left + len(form) - 1])
    seen = image + noise * dice.standard_normal(image.shape)
    return np.clip(seen, 0, 255).round().astype(np.uint8), mask, np.array(boxes, np.int32)


def _lines(mask: np.ndarray) -> str:
    return "\n".join(CLASSES[value] for value in mask.flatten())


def _program(dice: np.random.Generator, verbs: tuple[Verb, ...], things: list[Thing]) -> str:
    """A program that says something of these things, in which no answer is likelier for being that of more programs."""
    for verb in dice.permutation(list(verbs)):
        said = {program: scenes.run(program, things) for program in scenes.programs(verb)}
        answers = sorted({answer for answer in said.values() if answer is not None})
        if answers:
            answer = answers[dice.integers(len(answers))]
            equal = [program for program, one in said.items() if one == answer]
            return equal[int(dice.integers(len(equal)))]
    return f"count {things[0].colour}"


BODY = (
    "head", "neck", "left shoulder", "left elbow", "left wrist", "right shoulder", "right elbow", "right wrist",
    "hip", "left knee", "left foot", "right knee", "right foot",
)  # fmt: skip
HAND = ("thumb", "index", "middle", "ring", "little")
FACE = ("left eye", "right eye", "nose", "mouth")
POINTS: tuple[str, ...] = (*BODY, *HAND, *FACE)
# A line is drawn between these points.
LIMBS = ((0, 1), (1, 8), (2, 5), (2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (8, 11), (11, 12),
         *((7, finger) for finger in range(13, 18)))  # fmt: skip
Part = Literal["body", "hand", "face"]
PARTS: dict[Part, range] = {"body": range(13), "hand": range(13, 18), "face": range(18, 22)}


@source(verifiers=("dense.points",))
def figure(
    *,
    rows: PositiveInt,
    seed: int,
    size: Annotated[int, Field(ge=24, le=64)] = 24,
    noise: NonNegativeFloat = 15.0,
    parts: Annotated[tuple[Part, ...], Field(min_length=1)] = ("body", "hand", "face"),
    each: Literal["all", "apart", "one"] = "all",
) -> Rows:
    """Stick figures with 13 points of the body, 5 of the right hand and 4 of the face; the answer is a line of row and
    column for each point that is asked about.

    With `each: all` a row asks about all points of its `parts`; with `apart` a figure has a row for each part, whose
    domain that is; with `one` it is asked about one of them alone, in turn.

    Paper: none; the task was made for this demonstration, after Weinzaepfel et al. 2020 (DOPE, arXiv 2008.09457).
    Differs: nothing to differ from.
    """
    for number in range(rows):
        image, at = _stick(size, noise, ids.generator(seed, "shapes.figure", number))
        turns = {"all": [parts], "apart": [(p,) for p in parts], "one": [(parts[number % len(parts)],)]}
        asked: Sequence[Sequence[Part]] = turns[each]  # type: ignore[assignment]
        for some in asked:
            which = sorted(point for part in some for point in PARTS[part])
            lines = "\n".join(f"{at[point][0]} {at[point][1]}" for point in which)
            yield GivenRow(
                f"shapes.figure seed {seed} row {number}",
                {
                    "inputs": {"image": image, "parts": np.array(which, np.int32)},
                    "truth": {"points": at[which].astype(np.int32)},
                    "domain": "+".join(some),
                    "group": f"figure {seed} {number}",
                    "verifier": "dense.points",
                    "reference": lines,
                    "solution": lines,
                },
            )


def _stick(size: int, noise: float, dice: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture [size, size, 1] and where its points are, [22, 2]."""
    turn = dice.uniform(-0.7, 0.7, 8)

    def along(start: np.ndarray, angle: float, length: float) -> np.ndarray:
        """A point so far from another; an angle of 0 is straight down."""
        return off(start, length * np.cos(angle), length * np.sin(angle))

    def off(start: np.ndarray, down: float, right: float) -> np.ndarray:
        return np.array([start[0] + down, start[1] + right])

    neck = np.array([8.5, 11.5]) + dice.uniform(-1.2, 1.2, 2)
    head, hip = off(neck, -3.5, 0), along(neck, 0.2 * turn[0], 6.5)
    left, right = off(neck, 0.8, -2), off(neck, 0.8, 2)
    left_elbow, right_elbow = along(left, -0.9 + turn[1], 3), along(right, 0.9 + turn[2], 3)
    left_wrist, right_wrist = along(left_elbow, -0.6 + turn[3], 2.6), along(right_elbow, 0.6 + turn[4], 2.6)
    left_knee, right_knee = along(hip, -0.4 + 0.5 * turn[5], 3.4), along(hip, 0.4 + 0.5 * turn[6], 3.4)
    body = [head, neck, left, left_elbow, left_wrist, right, right_elbow, right_wrist, hip, left_knee,
            along(left_knee, -0.1, 3.2), right_knee, along(right_knee, 0.1, 3.2)]  # fmt: skip
    fingers = [along(right_wrist, 0.6 + turn[4] + bend, 2.6) for bend in (-1.2, -0.6, 0.0, 0.6, 1.2)]
    face = [off(head, *at) for at in ((-0.9, -1.1), (-0.9, 1.1), (0.2, 0.0), (1.3, 0.2 * turn[7]))]
    at = np.array([*body, *fingers, *face]) * size / 24
    ink = np.zeros((size, size))
    for one, other in LIMBS:
        for share in np.linspace(0, 1, size):
            _dot(ink, at[one] * (1 - share) + at[other] * share, 0.6)
    for point in (*PARTS["body"], *PARTS["face"]):
        _dot(ink, at[point], 1.0 if point in PARTS["face"] else 0.8)
    image = PAPER + (INK - PAPER) * ink[:, :, None] + noise * dice.standard_normal((size, size, 1))
    return np.clip(image, 0, 255).round().astype(np.uint8), np.clip(np.round(at), 0, size - 1).astype(int)


def _dot(ink: np.ndarray, at: np.ndarray, depth: float) -> None:
    row, column = np.clip(np.round(at), 0, len(ink) - 1).astype(int)
    ink[row, column] = depth
