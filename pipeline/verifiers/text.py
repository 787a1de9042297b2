"""Verifiers that compare texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, NonNegativeInt

from pipeline.kinds.verifier import Verifier, verifier
from pipeline.text.answers import plain_text, plain_words
from pipeline.text.marks import ANSWER, IS, given_answer, last_box, marked_line
from pipeline.text.numbers import plain_signs, whole_number


@dataclass(frozen=True)
class SameText:
    """A verifier whose short answers are right if they are the reference, letter by letter."""

    parse: Callable[[str], str | None]
    read: Callable[[str], str | None]

    def equal(self, answer: str, reference: str) -> bool:
        return answer != "" and answer in (reference, self.read(reference))


@verifier(by_text=True)
def marked() -> Verifier:
    """What is marked as the answer: on the line of the last `####`, as in GSM8K; in a text without one, behind the last
    `#` on its line, as in `6*7=42#42`. Headings of Markdown are no marks.

    A number there is compared in plain form (`#### $2,125` is `2125`), unless it begins with a zero: `042` is a text.

    Paper: none; the format of GSM8K (Cobbe et al. 2021), and of the procedural tasks.
    Differs: GSM8K's own script takes commas out of the number and no other sign.
    """

    def parse(text: str) -> str | None:
        line = marked_line(text)
        if line is None:
            marks = SINGLE.findall(text) if "#" in text else ()
            line = marks[-1] if marks else None
        return _plain(line) if line else None

    return SameText(parse, lambda text: parse(text) if "#" in text else _plain(text.strip()))


# A `#` that begins a line and is followed by a blank is a heading.
SINGLE = re.compile(r"(?:(?<!^)(?<![#\n])#|^#(?![# \t]))[ \t]*([^#\n]*)", re.MULTILINE)


def _plain(text: str) -> str | None:
    number = None if re.match(r"\W*0\d", text) or not re.search(r"\d", text) else whole_number(text)
    return plain_text(text) or None if number is None else str(number)


@verifier(by_text=True)
def line() -> Verifier:
    """The first line that is not empty; case, spacing, punctuation at its end and typographic forms do not count.

    Paper: none; a form of exact match for short answers.
    Differs: nothing.
    """

    def parse(text: str) -> str | None:
        return plain_words(text.strip().partition("\n")[0]) or None

    return SameText(parse, lambda text: parse(text) if "\n" not in text.strip() else None)


@verifier(by_text=True)
def exact() -> Verifier:
    """The whole text, but for white space around it and typographic forms: composed letters, quotes, full-width signs.

    Paper: none; exact match.
    Differs: nothing.
    """

    def parse(text: str) -> str | None:
        return plain_text(text) or None

    return SameText(parse, parse)


LETTERS = "ABCDEFGHIJ"
# A letter, and whether brackets or a label show that it is one; `A` and `I` are words too.
SHOWN = (
    r"(?:(?:option|choice|letter|answer)\s+)?[\"'(\[]*(?P<letter>[A-J]|(?<=[(\[])[a-hj])(?![A-Za-z\d_'+#])"
    r"(?P<close>[)\]\"'.:]*)"
)
SAYS = re.compile(
    # `Option: C` and `the correct option is C`, `Antwort: C`.
    rf"(?:(?:(?:{ANSWER})|option|choice|opción|opção|opzione)[^.\n:=?!]{{0,40}}?(?:(?:{IS})\s*:?|[:=])\s*"
    # `so (C)`, `it must be C`.
    r"|\b(?:so|thus|hence|therefore|but|it is|it's|must be|should be|choose|pick|select|go with|wait|actually)[,:]?\s+)"
    rf"(?P<not>not\s+)?{SHOWN}",
    re.IGNORECASE | re.MULTILINE,
)
# `(C) is correct`, `C is the right answer`.
PRAISED = re.compile(
    rf"(?<![\w']){SHOWN}\s*(?:is|must be|was)\s+(?:(?:the|a|most|only)\s+)*(?:correct|right|best|true|answer)",
)
# The letter is asked about or denied in what follows.
DENIED = re.compile(
    r"[)\]\"']*(?:\s*\?|\s*[,;:-]*\s*(?:no|nope|wait)\b|(?:(?!\b(?-i:[A-J])\b)[^.,;:?\n]){0,30}?\b"
    r"(?:(?:is|are|was|can|could|must|does)\s*(?:not|never|n't)\b|(?:is|are|was)\s+(?:\w+\s+)?"
    r"(?:wrong|incorrect|false|out|eliminated)\b))",
    re.IGNORECASE,
)
# More than one letter is no choice.
SEVERAL = re.compile(
    r"\s*(?:,|/|&|\bor\b|\band\b|\bund\b|\by\b|\bet\b)\s*(?:maybe\s+)?[(\[]?(?P<next>[A-J])\b(?!')[)\]]?"
)
LISTED = re.compile(
    r"^\W*(?P<letter>[A-J])(?=[.):]|\W*$)(?P<rest>[^\n]*)|(?<!\w)\((?P<inner>[A-Ja-hj])\)", re.MULTILINE
)
# What may follow a letter that is a word too.
ALONE = re.compile(r"\s*(?:$|[.,;:!)\]\n-]|because\b|since\b|as\b|is\b|must\b)")
AGREED = re.compile(r"\b(?:yes|correct|right|true)\b|[✓✔✅]", re.IGNORECASE)
DOUBTED = re.compile(r"\b(?:no|not|n't|wrong|incorrect|false)\b|n't|[✗✘❌]", re.IGNORECASE)
WHOLE = re.compile(
    r"\W*(?:(?:option|choice|answer|letter)\b\W*)?(?P<letter>[A-Ja-j])(?:\W*|\s*[).:]\s.*)", re.IGNORECASE | re.DOTALL
)
INDEX = re.compile(r"\s*(\d{1,2})(?:\.0)?\s*")


@verifier(by_text=True)
def choice(*, choices: Annotated[int, Field(ge=2, le=10)] = 10, index_from: NonNegativeInt | None = None) -> Verifier:
    """The letter A to J that is chosen: the last that is boxed, announced (`the answer is B`, `Antwort: B`) or affirmed
    (`B is correct`); if there is none, the one letter that is shown (`(B)`, `B)` at the start of a line, `B`).

    A letter that the same sentence rejects is not chosen, several at once are not, nor are several options that a text
    walks through. `choices` is how many letters there are. A reference is a letter (`c`, `(C)`, `C. red`), and with
    `index_from`, which says what number the first has, an index: of `index_from: 0`, `2` is C.

    Paper: none; the extraction that multiple-choice benchmarks need.
    Differs: a letter inside running text (`A cat`) is never taken for a choice.
    """
    letters = LETTERS[:choices]

    def parse(text: str) -> str | None:
        found = chosen(text)
        return found if found and found in letters else None

    def read(text: str) -> str | None:
        index = INDEX.fullmatch(text)
        if index and index_from is not None:
            at = int(index[1]) - index_from
            return letters[at] if 0 <= at < choices else None
        whole = WHOLE.fullmatch(_bare(given_answer(text)))
        letter = whole["letter"].upper() if whole else None
        return letter if letter and letter in letters else None

    return SameText(parse, read)


def chosen(text: str) -> str | None:
    """The letter that a text chooses; None if it chooses none or several."""
    box = last_box(text)
    if box is not None:
        whole = WHOLE.fullmatch(_bare(box))
        return whole["letter"].upper() if whole else None
    text = _bare(text)
    said = [
        (found.start("letter"), found["letter"].upper() if _one(text, found) else None)
        for pattern in (SAYS, PRAISED)
        for found in pattern.finditer(text)
        if not found.groupdict().get("not") and _is_letter(text, found) and not DENIED.match(text, found.end("letter"))
    ]
    return max(said)[1] if said else _listed(text)


def _bare(text: str) -> str:
    """A text without emphasis and LaTeX's commands for type."""
    return plain_signs(plain_text(text)).replace("**", "").replace("__", "").replace("$", "")


def _is_letter(text: str, found: re.Match[str]) -> bool:
    """Whether it is one, and neither an article nor a pronoun."""
    shown = found["close"] or text[found.start("letter") - 1 : found.start("letter")] in ("(", "[", '"', "'")
    return bool(found["letter"].isupper() or shown) and bool(
        found["letter"] not in "AI" or shown or ALONE.match(text, found.end())
    )


def _one(text: str, found: re.Match[str]) -> bool:
    """Whether no other letter is named with it, but to be rejected."""
    other = SEVERAL.match(text, found.end())
    return other is None or other["next"] == found["letter"] or DENIED.match(text, other.end("next")) is not None


def _listed(text: str) -> str | None:
    """The one letter that is shown and not rejected; of several the one line that says it is right."""
    shown, agreed = set(), set()
    for found in LISTED.finditer(text):
        letter, rest = (found["letter"] or found["inner"]).upper(), found["rest"] or ""
        if DENIED.match(text, found.end("letter" if found["letter"] else "inner")):
            continue
        shown.add(letter)
        if AGREED.search(rest) and not DOUBTED.search(rest):
            agreed.add(letter)
    return next(iter(shown)) if len(shown) == 1 else next(iter(agreed)) if len(agreed) == 1 else None
