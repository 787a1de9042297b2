"""Text of models and users on a page: control characters, and those that turn the direction of writing, are shown."""

from __future__ import annotations

# For `str.translate`; tab and line break stay what they are.
VISIBLE = {
    n: repr(chr(n))[1:-1]
    for n in (
        *range(9), *range(11, 32), *range(127, 160), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
    )
}  # fmt: skip
