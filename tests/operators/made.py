"""Parents by hand, and what an operator makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline.core.methods import find
from pipeline.kinds.operator import Child, Parent, Unreadable
from pipeline.kinds.verifier import answer_of, metric_of
from pipeline.tables import ids


def prompt(text: str, domain: str = "add", reference: str | None = None, verifier: str = "numeric.last") -> Parent:
    """A prompt; it has a verifier if it has a reference."""
    messages = [{"role": "user", "content": text}]
    own = ids.prompt_id(messages)
    return Parent(own, own, messages, domain, 1, verifier if reference else None, reference, None)


def answer(to: Parent, said: str, entry: str = "teacher", sample: int = 0) -> Parent:
    """A sample of an entry's answer to a prompt, judged by its verifier; ids are in the order of the samples."""
    short = answer_of(to.verifier, said)
    metric = metric_of(to.verifier, short, to.reference)
    own = f"{entry} {sample} {to.prompt_id}"
    return replace(to, id=own, entry=entry, content=said, answer=short, right=None if metric is None else metric == 1)


def made(name: str, parents: Sequence[Parent], seed: int = 3, **arguments: Any) -> list[Child | Unreadable]:
    """All that an operator makes of parents, which it is given in the order of their ids."""
    method = find("operator", name)
    operator = method.factory(**method.arguments.model_validate(arguments).model_dump())
    return list(operator(sorted(parents, key=lambda parent: parent.id), seed))


def asked(name: str, parents: Sequence[Parent], seed: int = 3, **arguments: Any) -> list[str]:
    """The texts of the prompts that it makes."""
    return [str(one.columns["prompt"]) for one in made(name, parents, seed, **arguments) if isinstance(one, Child)]


def unread(name: str, parents: Sequence[Parent], **arguments: Any) -> list[str]:
    """Why it can make nothing of some."""
    return [one.why for one in made(name, parents, **arguments) if isinstance(one, Unreadable)]
