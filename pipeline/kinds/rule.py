"""What a rule is given and gives: texts, those of a benchmark, and which of the texts are not to be used, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from pipeline.core.methods import marker

# Values that are Python objects together.
BLOCK = 8192


@dataclass(frozen=True)
class Texts:
    """The prompts of a pool, or answers, in the order of their ids; every column has one value per text, and may lie in
    a mapped file.

    `raw` are the texts as they came, without system turns, which are in `systems`: a pool and a benchmark may share one
    without sharing an item. `plain` has them without case, spacing and typographic forms, `words` without punctuation
    too, and empty where arrays stand beside the words: these may be one instruction for all items. `inputs` are digests
    of the arrays, `groups` what prompts share that are one task with the same parameters, and `references` the answers.
    """

    ids: pa.Array
    raw: pa.Array
    plain: pa.Array
    words: pa.Array
    systems: pa.Array
    groups: pa.Array
    references: pa.Array
    inputs: pa.Array

    def __len__(self) -> int:
        return len(self.ids)

    def wordings(self) -> Iterator[tuple[str, str | None]]:
        """What decides whether two prompts are one item: their text, and the arrays that it is about."""
        return zip(each(self.plain), each(self.inputs), strict=True)


def each(column: pa.Array) -> Iterator[Any]:
    """The values of a column one after another: as a list they would be larger than all texts."""
    return (value for start in range(0, len(column), BLOCK) for value in column[start : start + BLOCK].to_pylist())


class Rule(Protocol):
    """Judges all texts at once."""

    def __call__(self, texts: Texts, benchmark: Texts, /) -> Mapping[int, str]:
        """The positions of the texts that are not to be used, each with what shows it. Of texts that are too much alike
        the first stays."""
        ...


@dataclass(frozen=True)
class Judged:
    """What a rule says of one text: the number that it looked at, and what shows that the text is not to be used."""

    value: float
    evidence: str | None = None


@dataclass(frozen=True)
class Alone:
    """A rule that judges every text by itself, so that `score` can ask it about an answer."""

    judge: Callable[[str], Judged]

    def __call__(self, texts: Texts, benchmark: Texts, /) -> dict[int, str]:
        """The texts that it found something in."""
        found = (self.judge(text).evidence for text in each(texts.raw))
        return {i: evidence for i, evidence in enumerate(found) if evidence is not None}


# Traits: `drops`, what the rule is called in the table of drops; `sees`, what a text is held against: its `pool`, the
# `benchmark`, or nothing but the `text` itself, for which the rule is an `Alone`; `copies`, for a rule that sees a
# benchmark, from its arguments to the kinds of planted copies that it has to find (`text/canaries.py`), and how many
# words of its own an item must have for that.
rule = marker("rule")
