"""Operators that read the prompts that a model wrote out of its answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import PositiveInt

from pipeline.kinds.operator import Child, Operator, Parent, Unreadable, operator

NUMBERED = re.compile(r"^[ \t]*(?:#+[ \t]*)?(?:(?:task|question|problem)[ \t]*)?\d{1,3}[.):][ \t]*", re.I | re.M)


@operator(reads="answers", elicitation="labeling")
def prompts(*, form: Literal["numbered", "lines", "whole"] = "numbered", least: PositiveInt = 1) -> Operator:
    """The prompts in an answer: one below each number, one on each line, or the whole of it; one of fewer than `least`
    characters is none.

    Paper: Wang et al. 2023 (arXiv 2212.10560), section 2.2, and Xu et al. 2024 (arXiv 2304.12244).
    Differs: no prompt has an answer from here; a model is asked for it.
    """

    def read(parents: Sequence[Parent], seed: int) -> Iterator[Child | Unreadable]:
        for parent in parents:
            found = [text for text in map(str.strip, _texts(parent.content or "", form)) if len(text) >= least]
            if not found:
                yield Unreadable(parent, f"no prompt is written in it ({form})")
            yield from (Child([parent], {"prompt": text}) for text in found)

    return read


def _texts(content: str, form: str) -> list[str]:
    if form == "whole":
        return [content]
    # What stands before the first number is no prompt.
    return content.splitlines() if form == "lines" else NUMBERED.split(content)[1:]
