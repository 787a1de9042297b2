"""The short answer in an answer text, and whether it is right: a row names its verifier, and this finds it."""

from __future__ import annotations

from functools import cache
from typing import Protocol

from pipeline.core.methods import find, marker


class Verifier(Protocol):
    """Reads the short answer out of a text, and compares it with the reference."""

    def parse(self, text: str) -> str | None:
        """The short answer, in a form in which equal answers are mostly equal texts; None if there is none."""
        ...

    def equal(self, answer: str, reference: str) -> bool:
        """Whether a short answer is right. A reference that cannot be read equals nothing, itself included."""
        ...


@cache
def verifier_named(name: str) -> Verifier:
    """The verifier that a row names in its column `verifier`."""
    return find("verifier", name).factory()


def answer_of(verifier: str | None, content: str | None) -> str | None:
    """The short answer in a text; without a verifier the whole text is the answer."""
    if content is None:
        return None
    return content.strip() or None if verifier is None else verifier_named(verifier).parse(content)


def metric_of(verifier: str | None, answer: str | None, reference: str | None) -> float | None:
    """1 for a short answer that is right, 0 for one that is wrong or could not be read; None if nothing can tell."""
    if verifier is None or reference is None:
        return None
    return float(answer is not None and verifier_named(verifier).equal(answer, reference))


verifier = marker("verifier")
