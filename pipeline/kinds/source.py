"""What a source gives: rows of prompts, and rows that could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from pipeline.core.methods import marker

Message = dict[str, str]


@dataclass(frozen=True)
class GivenRow:
    """A row as it was found: where it stands, and its columns, which are the user's own or those of `prompts`.

    `inputs` and `truth` may be mappings of names to numpy arrays, or to bytes that are a whole PNG or JPEG.
    """

    source: str
    columns: Mapping[str, object]


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: where it stands, what is wrong with it, and how it begins."""

    source: str
    why: str
    raw: str = ""


Rows = Iterator[GivenRow | BadRow]


class Source(Protocol):
    """Gives rows once, in an order that is always the same."""

    def __iter__(self) -> Rows:
        """The rows, each as it is read."""
        ...


# Traits: `files`, from the arguments to the user's own files that are read; `verifiers`, those that its rows may name,
# without which any may be.
source = marker("source")
