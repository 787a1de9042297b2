"""Scenes of things on a grid: what they are called, what is asked about them, and programs that answer it.

A program is a word and what it is about: `count red square`, `colour square`, `shape red`, `more red, blue`,
`left red square, blue cross`. A thing is described by its colour, its form or both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

# What colours are called -> red, green and blue; what forms are called -> where they are drawn, 5 x 5.
COLOURS = {"red": (225, 60, 50), "green": (60, 190, 70), "blue": (70, 100, 235), "yellow": (230, 215, 60)}
FORMS = {
    name: np.array([[int(c) for c in row] for row in rows.split()], bool)
    for name, rows in {
        "square": "11111 11111 11111 11111 11111",
        "frame": "11111 10001 10001 10001 11111",
        "cross": "00100 00100 11111 00100 00100",
        "saltire": "10001 01010 00100 01010 10001",
    }.items()
}
# The same forms in the fewest pixels.
SMALL = {
    name: np.array([[int(c) for c in row] for row in rows.split()], bool)
    for name, rows in {
        "square": "111 111 111",
        "frame": "111 101 111",
        "cross": "010 111 010",
        "saltire": "101 010 101",
    }.items()
}
NOTHING = "."
INITIALS = {name[0]: name for name in COLOURS}
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


@dataclass(frozen=True)
class Thing:
    """A form in a colour at a place of the grid."""

    colour: str
    form: str
    row: int
    column: int

    def __str__(self) -> str:
        return f"{self.colour} {self.form} {self.row} {self.column}"


def written(things: Sequence[Thing]) -> str:
    """A scene as a text."""
    return "; ".join(map(str, things))


def read(text: str) -> list[Thing] | None:
    """The scene that a text writes; None if it writes none."""
    found = []
    for part in text.split(";"):
        words = part.split()
        if len(words) != 4 or words[0] not in COLOURS or words[1] not in FORMS or not "".join(words[2:]).isdecimal():
            return None
        found.append(Thing(words[0], words[1], int(words[2]), int(words[3])))
    return found


def where(thing: Thing, grid: int) -> str:
    """A thing's place in words, on a grid of 2 or 3 rows and columns."""
    rows, columns = ((names if grid == 3 else names[::2]) for names in (ROWS, COLUMNS))
    return f"{rows[thing.row]} {columns[thing.column]}"


def caption(things: Sequence[Thing], grid: int) -> str:
    """What a scene shows, in the order of its places."""
    told = sorted(things, key=lambda thing: (thing.row, thing.column))
    return ", ".join(f"{thing.colour} {thing.form} {where(thing, grid)}" for thing in told)


def matching(words: str, things: Sequence[Thing]) -> list[Thing] | None:
    """The things of a colour, of a form, or of both; None if the words describe nothing."""
    described = words.split()
    if not described or any(word not in COLOURS and word not in FORMS for word in described):
        return None
    return [thing for thing in things if all(word in (thing.colour, thing.form) for word in described)]


def run(program: str, things: Sequence[Thing]) -> str | None:
    """What a program says of a scene; None if it is none, or if what it is about is not one thing where it must be."""
    verb, _, about = program.strip().partition(" ")
    described = [matching(words, things) for words in about.split(",")]
    if verb not in VERBS or any(some is None for some in described):
        return None
    most, of = VERBS[verb]
    return of([some or [] for some in described]) if len(described) == most else None


def _count(described: Sequence[Sequence[Thing]]) -> str:
    return str(len(described[0]))


def _one(of: Callable[[Thing], str]) -> Callable[[Sequence[Sequence[Thing]]], str | None]:
    return lambda described: of(described[0][0]) if len(described[0]) == 1 else None


def _more(described: Sequence[Sequence[Thing]]) -> str:
    return "yes" if len(described[0]) > len(described[1]) else "no"


def _left(described: Sequence[Sequence[Thing]]) -> str | None:
    first, second = described
    return ("yes" if first[0].column < second[0].column else "no") if len(first) == len(second) == 1 else None


# A verb -> how many descriptions it takes, and what it says of the things that they match.
VERBS: dict[str, tuple[int, Callable[[Sequence[Sequence[Thing]]], str | None]]] = {
    "count": (1, _count),
    "colour": (1, _one(lambda thing: thing.colour)),
    "shape": (1, _one(lambda thing: thing.form)),
    "more": (2, _more),
    "left": (2, _left),
}
ASKED = {
    "count": "how many {0}?", "colour": "what colour is the {0}?", "shape": "what shape is {0}?",
    "more": "more {0} than {1}?", "left": "is the {0} left of the {1}?",
}  # fmt: skip


def question(program: str) -> str:
    """A program in words."""
    verb, _, about = program.partition(" ")
    return ASKED[verb].format(*(words.strip() for words in about.split(",")))


def programs(verb: str) -> Iterator[str]:
    """All programs of a verb about one colour, one form, or both, none about a thing and itself."""
    colours, forms = list(COLOURS), list(FORMS)
    both = [f"{colour} {form}" for colour, form in product(colours, forms)]
    about = {"count": [*colours, *forms, *both], "colour": forms, "shape": colours}.get(verb)
    if about is not None:
        yield from (f"{verb} {words}" for words in about)
        return
    for pair in (colours, forms) if verb == "more" else (both,):
        yield from (f"{verb} {one}, {other}" for one, other in product(pair, pair) if one != other)


def drawn(things: Sequence[Thing], grid: int) -> str:
    """A scene as letters, a line for each row of pixels: colours by their initials, `.` for nothing; 4 x 4 a place."""
    letters = np.full((4 * grid, 4 * grid), NOTHING)
    for thing in things:
        place = letters[4 * thing.row : 4 * thing.row + 3, 4 * thing.column : 4 * thing.column + 3]
        place[SMALL[thing.form]] = thing.colour[0]
    return "\n".join("".join(row) for row in letters)


def recognised(text: str) -> list[Thing] | None:
    """The things that letters draw; None if they are no drawing, or if something in it is no thing."""
    lines = text.split()
    grid = len(lines) // 4
    if grid not in (2, 3) or len(lines) != 4 * grid or any(len(line) != 4 * grid for line in lines):
        return None
    letters = np.array([list(line) for line in lines])
    found = []
    for row, column in product(range(grid), repeat=2):
        place = letters[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        inked = place != NOTHING
        if not inked.any():
            continue
        names = set(place[inked].tolist())
        form = next((name for name, mask in SMALL.items() if (inked[:3, :3] == mask).all()), None)
        if form is None or len(names) > 1 or not names <= INITIALS.keys() or inked[3].any() or inked[:, 3].any():
            return None
        found.append(Thing(INITIALS[names.pop()], form, row, column))
    return found
