"""What an operator is: from prompts of a pool, or answers to them, to prompts of another pool."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, get_args

from pipeline.core.methods import marker
from pipeline.kinds.source import Message
from pipeline.tables import ids

Teacher = Annotated[str, "teacher"]  # the entry of generate whose answers are the teacher's
Student = Annotated[str, "student"]  # and the student's

# How what was trained on was brought out of a model, in the words of Xu et al. 2024 (arXiv 2402.13116), section 3.
Elicitation = Literal["labeling", "expansion", "curation", "feature", "feedback", "self-knowledge"]
ELICITED: tuple[Elicitation, ...] = get_args(Elicitation)


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
        """What is asked: the user's turn, or of several turns all but the system's, each behind its role."""
        turns = [turn for turn in self.messages if turn["role"] != "system"]
        if len(turns) == 1:
            return turns[0]["content"]
        return "\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns)

    @property
    def said(self) -> str:
        """The text of the answer, as it can be shown."""
        return (self.content or "").strip() or "(nothing)"


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


def of_each(parents: Sequence[Parent]) -> dict[str, list[Parent]]:
    """The answers to each prompt, in the order of the prompts' ids."""
    found: dict[str, list[Parent]] = {}
    for parent in sorted(parents, key=lambda parent: parent.prompt_id):
        found.setdefault(parent.prompt_id, []).append(parent)
    return found


def of_domains(parents: Sequence[Parent]) -> dict[str, list[Parent]]:
    """The parents of each domain, in the order of the domains' names."""
    found: dict[str, list[Parent]] = {}
    for parent in sorted(parents, key=lambda parent: parent.domain):
        found.setdefault(parent.domain, []).append(parent)
    return found


def dealt(rows: int, domains: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Every domain in turn, with the number of the turn, `rows` of them in all; none if there is no domain."""
    names = list(domains)
    return ((names[i % len(names)], i // len(names)) for i in range(rows if names else 0))


def drawn(parents: Sequence[Parent], count: int, seed: int, *names: str | int) -> list[Parent]:
    """Some of them, in the order in which they are drawn for one named purpose."""
    chosen = ids.generator(seed, *names).choice(len(parents), min(count, len(parents)), replace=False)
    return [parents[i] for i in chosen]


def numbered(texts: Iterable[str]) -> str:
    """Texts below each other, each behind its number."""
    return "\n".join(f"{i}. {text}" for i, text in enumerate(texts, 1))


class Operator(Protocol):
    """Makes prompts."""

    def __call__(self, parents: Sequence[Parent], seed: int, /) -> Iterator[Child | Unreadable]:
        """Children of parents that are given in the order of their ids; whatever is drawn is drawn by the seed and by
        what it is drawn for."""
        ...


# Traits: `reads`, whether a parent is a prompt (`prompts`) or an answer (`answers`); `elicitation`, what the answers to
# its children bring out of a model, where what an answer is read for is `labeling` and then that of the question itself
# stands; `verdict`, of one that asks about answers, what a judge reads in the replies (`kinds/judge.py`).
operator = marker("operator")
