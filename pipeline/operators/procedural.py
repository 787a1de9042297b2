"""Operators about the demonstration's tasks (`text/procedures.py`), which a procedure solves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pipeline.kinds.operator import Child, Operator, Parent, Unreadable, operator
from pipeline.operators.written import texts
from pipeline.text.procedures import DOMAINS, kind_of


@operator(reads="answers", elicitation="labeling", verifiers=("text.marked",))
def solved(*, form: Literal["numbered", "lines", "whole"] = "numbered") -> Operator:
    """The tasks of the eight kinds that are written in an answer, as `written.prompts` finds them, each with the result
    that its procedure finds as the reference; any other text is told and left out.

    Paper: none; it stands for whatever can solve, or run, what a model has written.
    Differs: nothing to differ from.
    """

    def read(parents: Sequence[Parent], seed: int) -> Iterator[Child | Unreadable]:
        for parent in parents:
            for text in map(str.strip, texts(parent.content or "", form)):
                if (kind := kind_of(text)) is None:
                    yield Unreadable(parent, "no task of the eight kinds is written there")
                    continue
                reference = DOMAINS[kind].solve(text, False)[1]
                columns = {"prompt": text, "domain": kind, "verifier": "text.marked", "reference": reference}
                yield Child([parent], columns | {"group": DOMAINS[kind].key(text)})

    return read
