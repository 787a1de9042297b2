"""What a judge is: from what a model said of answers, in a pool of questions about them, to a score for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.core.methods import marker


@dataclass(frozen=True)
class Verdict:
    """What was said to a question: the answers that it shows, in their order, and the short answer of every sample,
    None where none could be read."""

    about: tuple[str, ...]
    said: tuple[str | None, ...]


class Judge(Protocol):
    """Scores answers."""

    def __call__(self, verdicts: Sequence[Verdict], /) -> Mapping[str, dict[str, Any]]:
        """Every answer that a question is about, with its columns of the table `scores`: `score`, `quantities`, and
        `detail` if it has one. What is no verdict decides nothing: it is the `unread` of what was `asked`."""
        ...


# Traits: `verdict`, what is asked for, by the same word as in the trait of the operators that make the questions:
# `points` for an answer, which of two is `better`, whether two say the `same`; `score`, SQL that gives the score from
# its quantities, which the laws hold it to; `good`, from the arguments to the score above which an answer is taken for
# good, so that the judge can be held against a verifier.
judge = marker("judge")
