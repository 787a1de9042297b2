"""Numbers in one notation: digits of any script, grouped thousands and English words become plain digits."""

from __future__ import annotations

import re
import unicodedata

import pyarrow as pa

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
VALUES = {word: n for n, word in enumerate(ONES)} | {word: 10 * n for n, word in enumerate(TENS, 2)}
WORD = "|".join([*VALUES, "hundred", *SCALES])
AND = "|".join(f"(?<={scale}) and " for scale in ("hundred", *SCALES))
SPELLED = re.compile(
    rf"(?:(?<![\w.,])\d+(?=[ -](?:hundred|{'|'.join(SCALES)})\b)|\b(?:{WORD}))(?:(?:[ -]|{AND})(?:{WORD}))*\b"
)
GROUPED = re.compile(r"(?<![\d.,])(\d{1,3}(?:,\d{3})+)(?![\d,])")
OTHER = re.compile(r"(?![0-9])\d")


def with_digits(texts: pa.Array) -> pa.Array:
    """Plain texts with every number in digits."""
    return pa.array([_with_digits(text) for text in texts.to_pylist()], pa.string())


def _with_digits(text: str) -> str:
    text = text if text.isascii() else OTHER.sub(lambda found: str(unicodedata.decimal(found[0])), text)
    text = GROUPED.sub(lambda found: found[1].replace(",", ""), text)
    return SPELLED.sub(lambda found: " ".join(map(str, _values(re.split(r"[ -]", found[0])))), text)


def _values(words: list[str]) -> list[int]:
    """The numbers that a row of words says: `two hundred and five` is one, `three four` are two."""
    numbers: list[int] = []
    whole = part = 0
    last = ""
    for word in words:
        if word in SCALES:
            whole, part = whole + max(part, 1) * SCALES[word], 0
        elif word == "hundred":
            part = max(part, 1) * 100
        elif word != "and":
            value = VALUES[word] if word in VALUES else int(word)
            # What a word may follow in one number: nothing, `hundred` and the like, or `twenty` before `five`.
            if last and last != "hundred" and last not in SCALES and not (VALUES.get(last, 0) >= 20 and 0 < value < 10):
                numbers.append(whole + part)
                whole = part = 0
            part += value
        last = word if word != "and" else last
    return [*numbers, whole + part]


def in_words(number: int) -> str:
    """A number below a million in English words."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10 - 2] + (f"-{ONES[number % 10]}" if number % 10 else "")
    scale, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    return f"{in_words(number // scale)} {name}" + (f" {in_words(number % scale)}" if number % scale else "")
