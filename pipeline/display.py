"""Text of models and users made safe to show, on a terminal and on a page."""

from __future__ import annotations

import re

# For `str.translate`; tab and line break stay what they are.
VISIBLE = {
    n: repr(chr(n))[1:-1]
    for n in (
        *range(9), *range(11, 32), *range(127, 160), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
    )
}  # fmt: skip

HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Text without the control characters that a terminal would obey; errors may quote what a model wrote."""
    return HIDDEN.sub("", text)
