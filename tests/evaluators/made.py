"""Models that say what a test lets them say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.methods import find
from pipeline.kinds.backend import Answer, Sampling
from pipeline.kinds.evaluator import Exam, Item, Mark
from pipeline.laws.evaluator import Made


@dataclass
class Saying(Made):
    """What it says to every item, sample by sample, and how sure it is of it."""

    skill: float = 0.0
    said: Sequence[Sequence[str]] = ()
    sure: Sequence[float] = ()
    finished: Mapping[str, str] = field(default_factory=dict)

    def answers(self, sampling: Sampling, k: int = 1, seed: int = 0) -> list[list[Answer]]:
        """The first k of what it says."""
        found = []
        for i, texts in enumerate(self.said):
            logprobs = [self.sure[i]] if self.sure else None
            found.append([
                Answer("r", text, self.finished.get(text, "stop"), logprobs=logprobs, completion_tokens=len(text))
                for text in texts[:k]
            ])  # fmt: skip
        return found


def items(*references: str | None) -> list[Item]:
    """Questions with these right answers."""
    return [Item(f"p{i}", [], "d", None, "text.exact", r) for i, r in enumerate(references)]


def marks(name: str, items: Sequence[Item], said: Saying, other: Saying | None = None, **arguments: Any) -> list[Mark]:
    """The marks of an evaluator, in the order of the items."""
    method = find("evaluator", name)
    evaluator = method.factory(**method.arguments.model_validate(arguments).model_dump())
    found = {mark.item.prompt_id: mark for mark in evaluator(Exam(items, said, other))}
    return [found[item.prompt_id] for item in items]
