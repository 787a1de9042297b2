"""Verifiers of programs over a scene."""

from __future__ import annotations

from pipeline.kinds.verifier import Verifier, verifier
from pipeline.text import scenes


@verifier()
def answer() -> Verifier:
    """A program and what it says, `count red = 2`, or an answer alone, in the last line; the reference is the answer
    and the scene, `2 | red square 0 0; red cross 1 0`. A program is right if it says of that scene what it is said to
    say, and if that is the answer.

    Paper: Hu et al. 2024 (Visual program distillation, arXiv 2312.03052), section 3.1: programs are kept whose output
    is the label.
    Differs: programs over a scene of things (`text/scenes.py`) in the place of Python with vision tools.
    """
    return Program()


class Program:
    """See `answer`."""

    def parse(self, text: str) -> str | None:
        parts = [" ".join(part.split()) for part in text.strip().split("\n")[-1].split("=")]
        return " = ".join(parts) if all(parts) else None

    def read(self, text: str) -> str | None:
        said, bar, scene = text.partition("|")
        things = scenes.read(scene)
        return f"{' '.join(said.split())} | {scenes.written(things)}" if said.strip() and bar and things else None

    def equal(self, answer: str, reference: str) -> bool:
        if "|" in answer and "|" not in reference:
            return self.equal(reference, answer)
        if not answer or "|" in answer or "|" not in reference:
            return bool(answer) and answer == reference
        right, _, scene = reference.partition("|")
        things = scenes.read(scene)
        program, _, said = answer.rpartition(" = ")
        return things is not None and said == right.strip() and (not program or scenes.run(program, things) == said)
