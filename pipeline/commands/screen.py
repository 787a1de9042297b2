"""What commands print, and numbers that they are given.

All text passes `show`, so that nothing a model wrote can command the terminal.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence

from pipeline.display import printable

WIDEST = 60


def show(lines: Iterable[str]) -> None:
    """Print lines, without what a terminal would obey."""
    for line in lines:
        print(printable(line))


def show_json(content: object) -> None:
    """Print JSON in ASCII: control characters are escaped, and nothing is lost."""
    print(json.dumps(content, indent=1, default=str).replace("\x7f", "\\u007f"))


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Rows as aligned lines; numbers to the right, long texts cut."""
    listed = [list(row) for row in rows]
    cells = [[_cell(value) for value in row] for row in listed]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    right = [bool(listed) and all(isinstance(v, int | float | None) for v in c) for c in zip(*listed, strict=True)]
    right = right or [False] * len(names)

    def line(row: Sequence[str]) -> str:
        aligned = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        return "  ".join(aligned).rstrip()

    return [line(names), line(["-" * w for w in widths]), *map(line, cells)]


def _cell(value: object) -> str:
    if value is None:
        return "null"
    text = printable(f"{value:.6g}" if isinstance(value, float) else str(value)).replace("\n", "\\n").replace("\t", " ")
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def at_least_one(text: str) -> int:
    """A number of rows, as an argument of a command."""
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {printable(text)!r}") from error
    if not 1 <= number < 2**31:
        raise argparse.ArgumentTypeError(f"must be 1 or more, and at most {2**31 - 1} (it is {number})")
    return number
