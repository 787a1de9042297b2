"""Verifiers of drawings."""

from __future__ import annotations

from pipeline.kinds.verifier import Verifier, verifier
from pipeline.text import scenes


@verifier(by_text=True)
def caption() -> Verifier:
    """What a drawing in letters shows, in the words of `shapes.drawing`; one with anything else in it shows nothing.
    The reference is the caption that was to be drawn.

    Paper: none; a drawing is judged by what a program sees in it.
    Differs: nothing.
    """
    return Caption()


class Caption:
    """See `caption`."""

    def parse(self, text: str) -> str | None:
        things = scenes.recognised(text)
        return scenes.caption(things, len(text.split()) // 4) if things else None

    def read(self, text: str) -> str | None:
        return " ".join(text.split()) or None

    def equal(self, answer: str, reference: str) -> bool:
        return bool(answer) and answer == reference
