"""What an operator is: from prompts of a pool, or answers to them, to prompts of another pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.core.methods import marker
from pipeline.kinds.source import Message


@dataclass(frozen=True)
class Parent:
    """A prompt, or an answer to one, that others are made from.

    `id` is the prompt's, or the answer's, and the fields below `entry` are an answer's alone: the entry that asked, its
    text, the short answer in it, and whether that is right by the prompt's own verifier, None where nothing can tell.
    """

    id: str
    prompt_id: str
    messages: Sequence[Message]
    domain: str
    level: int | None
    verifier: str | None
    reference: str | None
    solution: str | None
    entry: str | None = None
    content: str | None = None
    answer: str | None = None
    right: bool | None = None

    @property
    def question(self) -> str:
        """The last turn, which is the user's."""
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class Child:
    """A prompt that was made of parents, in the order in which it shows them; `columns` are those of a given row, such
    as `messages` or `prompt`, `verifier`, `reference` and `level`.

    Its domain is that of its first parent unless it says another.
    """

    parents: Sequence[Parent]
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Unreadable:
    """A parent that nothing could be made of, and why."""

    parent: Parent
    why: str


class Operator(Protocol):
    """Makes prompts."""

    def __call__(self, parents: Sequence[Parent], seed: int, /) -> Iterator[Child | Unreadable]:
        """Children of parents that are given in the order of their ids; whatever is drawn is drawn by the seed and by
        what it is drawn for."""
        ...


# Traits: `reads`, whether a parent is a prompt (`prompts`) or an answer (`answers`); `elicitation`, what the answers to
# its children bring out of a model, in the words of Xu et al. 2024 (arXiv 2402.13116, section 3): `labeling`,
# `expansion`, `curation`, `feature`, `feedback` or `self-knowledge`; `verdict`, of one that asks about answers, what a
# judge reads in the replies (`kinds/judge.py`).
operator = marker("operator")
