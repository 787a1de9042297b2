"""Verifiers of graphs: an answer has a line for each of its places."""

from __future__ import annotations

from pipeline.kinds.verifier import Verifier, verifier
from pipeline.tables.graphs import UNKNOWN


@verifier(by_place=True)
def nodes() -> Verifier:
    """The class of every node that is asked about, a line each. What a reference does not tell (`?`) is not compared;
    `evaluate` has a row for each of the others.

    Paper: none.
    Differs: nothing.
    """
    return Nodes()


class Nodes:
    """See `nodes`."""

    def parse(self, text: str) -> str | None:
        lines = [line.strip() for line in text.strip().split("\n")]
        return "\n".join(lines) if all(lines) else None

    def read(self, text: str) -> str | None:
        return self.parse(text)

    def equal(self, answer: str, reference: str) -> bool:
        said, right = answer.split("\n"), reference.split("\n")
        return len(said) == len(right) and all(
            one and (UNKNOWN in (one, other) or one == other) for one, other in zip(said, right, strict=True)
        )
