"""What an exporter is: from answers, prompts, signals or a model to files that another tool reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa

from pipeline.core.methods import marker
from pipeline.kinds.source import Message

# What becomes of a thought: it is left out, it stands before the answer in its text, or in a field of its own.
Reasoning = Literal["drop", "inline", "field"]
FIELD = "reasoning_content"
ROWS = "train-*"
PARQUET, LINES = "train-00000-of-00001.parquet", "train.jsonl"


@dataclass(frozen=True)
class Answer:
    """An answer that a selection looked at; `right` is what the prompt's own verifier says of it, None where nothing
    can tell."""

    response_id: str
    prompt_id: str
    domain: str
    entry: str
    messages: Sequence[Message]
    content: str
    reasoning: str | None
    finish_reason: str
    kept: bool
    weight: float
    right: bool | None

    def turn(self, reasoning: Reasoning, marks: tuple[str, str] = ("<think>", "</think>")) -> dict[str, str]:
        """The answer as the last message of its conversation."""
        said = {"role": "assistant", "content": self.content}
        if self.reasoning and reasoning == "inline":
            said["content"] = f"{marks[0]}\n{self.reasoning}\n{marks[1]}\n\n{self.content}"
        if self.reasoning and reasoning == "field":
            said[FIELD] = self.reasoning
        return said


# The answers to a prompt, prompt by prompt; rows of `prompts` that are not dropped; rows of `signals` in batches; a
# model's folder.
Sets = Iterable[Sequence[Answer]]
Prompts = Iterable[Mapping[str, Any]]
Batches = Iterable[pa.RecordBatch]


@dataclass(frozen=True)
class Shape:
    """What was written: the number of rows, a pattern for the files that hold them, and in Markdown how they are read.
    A model has no rows. `left` tells what of the source is not in it, and how often."""

    rows: int
    files: str
    use: str
    left: Mapping[str, int]


def kept(sets: Sets, reasoning: Reasoning, left: Counter[str]) -> Iterator[Answer]:
    """The answers that a selection kept; counts what of them no column will hold."""
    for answer in (answer for answers in sets for answer in answers if answer.kept):
        left["weights other than 1, which no column holds"] += answer.weight != 1
        left["thoughts, which another `reasoning` would keep"] += reasoning == "drop" and bool(answer.reasoning)
        yield answer


class Exporter(Protocol):
    """Hands over."""

    def __call__(self, given: Any, out: Path, /) -> Shape:
        """Fill an empty folder; what is given is Sets, Prompts, Batches or a model's folder, as `reads` says."""
        ...


# Traits: `reads`, what is given: `answers`, `prompts`, `signals` or a `model`. Rows lie in files that `load_dataset` of
# the library `datasets` finds by their names, ROWS.
exporter = marker("exporter")
