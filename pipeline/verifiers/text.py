"""Verifiers that compare texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.kinds.verifier import Verifier, verifier
from pipeline.text.answers import plain_words

ANNOUNCED = re.compile(r"(?i:answer)\s*(?:is\s*:?|:)[\s*]*\(?([A-E])\b|\\boxed\{(?:\\text\{)?\(?([A-E])\b")
SHOWN = re.compile(r"\(([A-E])\)|^\W*([A-E])(?=\**[.):]|\W*$)", re.MULTILINE)


@dataclass(frozen=True)
class SameText:
    """A verifier whose short answers are right if they are the reference, letter by letter."""

    parse: Callable[[str], str | None]

    def equal(self, answer: str, reference: str) -> bool:
        return answer != "" and answer == (self.parse(reference) or reference)


@verifier()
def marked() -> Verifier:
    """The text after the last `#`, as in `6*7=42#42` and `... #### 42`.

    Paper: none; the format of the procedural tasks, and of GSM8K (Cobbe et al. 2021).
    Differs: nothing.
    """
    return SameText(lambda text: text.rpartition("#")[2].strip() or None if "#" in text else None)


@verifier()
def line() -> Verifier:
    """The first line that is not empty; case, spacing and punctuation at its end do not count.

    Paper: none; a form of exact match for short answers.
    Differs: nothing.
    """
    return SameText(lambda text: plain_words(text.strip().partition("\n")[0]) or None)


@verifier()
def exact() -> Verifier:
    """The whole text, but for white space around it.

    Paper: none; exact match.
    Differs: nothing.
    """
    return SameText(lambda text: text.strip() or None)


@verifier()
def choice() -> Verifier:
    """The letter A to E that is chosen: the last that is announced (`the answer is B`) or boxed; if there is none, the
    last that is in brackets or begins a line.

    Paper: none; the extraction that multiple-choice benchmarks need.
    Differs: a letter inside running text (`A cat`) is never taken for a choice.
    """

    def parse(text: str) -> str | None:
        found = ANNOUNCED.findall(text) or SHOWN.findall(text)
        return "".join(found[-1]) if found else None

    return SameText(parse)
