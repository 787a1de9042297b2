"""Text of models and users made safe to show, on a terminal and on a page; and figures and names for people."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

# For `str.translate`; tab and line break stay what they are.
VISIBLE = {
    n: repr(chr(n))[1:-1]
    for n in (
        *range(9), *range(11, 32), *range(127, 160), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
    )
}  # fmt: skip

HIDDEN = re.compile(f"[{re.escape(''.join(map(chr, VISIBLE)))}]")


def printable(text: str) -> str:
    """Text without the characters that a terminal would obey, those that turn the direction of writing among them;
    errors may quote what a model wrote."""
    return HIDDEN.sub("", text)


def label(text: str, longest: int = 120) -> str:
    """Text as printable characters on one line, for a library that draws it: the others stand as Python writes them.

    Different texts stay different, but for the ends of very long ones.
    """
    whole = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[: longest + 1])
    return whole if len(whole) <= longest else f"{whole[:longest]}…"


def duration(seconds: float) -> str:
    """Seconds for people: 4.2 s, 42 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def nearest(word: str, words: Iterable[str], like: float = 0.6) -> str:
    """A question that names the nearest word, or nothing."""
    close = difflib.get_close_matches(word, list(words), 1, like)
    return f"; did you mean {close[0]}?" if close else ""


def listed(words: Sequence[str], most: int = 5) -> str:
    """The first of many words, and how many more there are."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
