"""Normal forms of short answers: what people would call the same answer becomes the same text."""

from __future__ import annotations

import re
import unicodedata

# What a prompt differs in from its near copies. A sign counts only where it cannot be a minus between two operands; a
# comma only between groups of three digits.
NUMBER = re.compile(
    r"(?:(?<![\w)\].])[-+\u2212])?(?:(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?",
    re.ASCII,
)
# Typographic signs -> those of a keyboard: quotes, and full-width forms with the stops of Chinese and Japanese.
KEYS = (
    dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u2032\u02bc\u00b4"), "'")
    | dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb"), '"')
    | {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    | {0x3001: ",", 0x3002: ".", 0xFF61: ".", 0xFF64: ",", 0x2026: "..."}
    | {0xAD: None, 0x200B: None, 0x2060: None, 0xFEFF: None}
)


def plain_text(text: str) -> str:
    """A text without space around it, in Unicode's composed form (NFC), with the quotes and stops of a keyboard."""
    text = text.strip()
    return text if text.isascii() else unicodedata.normalize("NFC", text.translate(KEYS)).strip()


def plain_words(text: str) -> str:
    """A text without case, runs of white space, typographic forms, and punctuation at its end."""
    return " ".join(plain_text(text).casefold().split()).rstrip(".,;:!? ")
