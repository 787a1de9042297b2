"""The short answer in an answer text, and whether it is right: a row names its verifier, and this finds it.

A verifier of arrays measures what was answered where that is no text, beside what would have been right.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, Protocol

import numpy as np
import yaml
from pydantic import ValidationError

from pipeline.core.methods import find, marker
from pipeline.errors import Refused

# Answers to a prompt lie together, and many are the same.
RECENT = 20_000


class Verifier(Protocol):
    """Reads the short answer out of a text, and compares it with the reference."""

    def parse(self, text: str) -> str | None:
        """The short answer, in a form in which equal answers are mostly equal texts; None if there is none, or if it
        cannot be read whole."""
        ...

    def read(self, text: str) -> str | None:
        """What a reference says, as a short answer; None if it is not one short answer and no more. A verifier without
        this method reads a reference as it reads an answer."""
        ...

    def equal(self, answer: str, reference: str) -> bool:
        """Whether a short answer is right. Any two short answers can be asked, as when they vote. A reference that
        cannot be read equals nothing, itself included."""
        ...


@dataclass(frozen=True)
class Judged:
    """What is said of arrays: the metric, and the numbers beside it."""

    metric: float
    quantities: Mapping[str, float] = field(default_factory=dict)


class OfArrays(ABC):
    """A verifier of arrays: no text is an answer to it."""

    def parse(self, text: str) -> str | None:
        """No short answer."""
        return None

    def read(self, text: str) -> str | None:
        """Nor a reference."""
        return None

    def equal(self, answer: str, reference: str) -> bool:
        """No two are the same."""
        return False

    @abstractmethod
    def judge(self, outputs: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> Judged:
        """How good arrays are, by name, beside what would have been right; what cannot be judged is refused."""


def spelled(name: str, arguments: dict[str, Any]) -> str:
    """How a row names a verifier: `text.choice`, or with what differs from its defaults, `text.choice {choices: 4}`."""
    fields = find("verifier", name).arguments.model_fields
    others = {key: value for key, value in arguments.items() if value != fields[key].default}
    flow = yaml.safe_dump(others, default_flow_style=True, allow_unicode=True, width=10_000)
    return f"{name} {flow.strip()}" if others else name


def name_of(verifier: str) -> str:
    """The name of the method in what a row says."""
    return verifier.partition(" ")[0]


@cache
def by_text(verifier: str) -> bool:
    """Whether short answers are equal exactly where they are the same text, as its trait `by_text` says."""
    return bool(find("verifier", name_of(verifier)).traits.get("by_text"))


@cache
def by_place(verifier: str) -> bool:
    """Whether a short answer has a line for each place, as its trait `by_place` says."""
    return bool(find("verifier", name_of(verifier)).traits.get("by_place"))


@cache
def measure_of(verifier: str) -> str | None:
    """What one of arrays measures, as its trait `measure` says; None for one of texts."""
    return find("verifier", name_of(verifier)).traits.get("measure")


@cache
def verifier_named(verifier: str) -> Verifier:
    """The verifier that a row names in its column `verifier`, with its arguments if there are some."""
    name, _, given = verifier.partition(" ")
    method = find("verifier", name)
    try:
        arguments = yaml.safe_load(given or "{}")
        return method.factory(**method.arguments.model_validate(arguments).model_dump())
    except (yaml.YAMLError, ValidationError) as error:
        takes = ", ".join(method.arguments.model_fields) or "no parameters"
        raise Refused(f"{verifier!r}: write `{name}`, or `{name} {{key: value}}`; it takes {takes}") from error


def answer_of(verifier: str | None, content: str | None) -> str | None:
    """The short answer in a text; without a verifier the whole text is the answer."""
    if content is None:
        return None
    return content.strip() or None if verifier is None else _parsed(verifier, content)


def reference_of(verifier: str, reference: str) -> str | None:
    """A reference as a short answer; None if its verifier cannot read it whole."""
    judge = verifier_named(verifier)
    answer = getattr(judge, "read", judge.parse)(reference)
    return answer if answer is not None and judge.equal(answer, answer) else None


def metric_of(verifier: str | None, answer: str | None, reference: str | None) -> float | None:
    """1 for a short answer that is right, 0 for one that is wrong or could not be read; None if nothing can tell."""
    if verifier is None or reference is None:
        return None
    return float(answer is not None and same(verifier, answer, reference))


@lru_cache(RECENT)
def _parsed(verifier: str, content: str) -> str | None:
    return verifier_named(verifier).parse(content)


@lru_cache(RECENT)
def same(verifier: str, answer: str, reference: str) -> bool:
    """Whether a verifier holds two short answers for one."""
    return verifier_named(verifier).equal(answer, reference)


# Traits: `by_text`, that short answers are equal exactly where they are the same text, so that nobody need compare
# them; `by_place`, that a short answer has a line for each of several places, which `evaluate` judges one by one. One
# of arrays is a class of `OfArrays` and has the traits `judges`, the names of the arrays; `measure`, what it measures;
# `unit`, in what; `better`, `higher` or `lower`.
verifier = marker("verifier")
