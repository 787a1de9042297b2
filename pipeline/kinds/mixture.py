"""What a mixture is: from what a table of gaps says of every domain to the share of each in what follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.core.methods import marker


@dataclass(frozen=True)
class Domains:
    """What is known of D domains, in the order of their names: all are [D], NaN where nothing is known.

    `prompts` counts those that both models answered, `passed` is the share of answers that are solved, `ppl` a model's
    perplexity on the teacher's answers, `cost` the teacher's tokens per solved prompt.
    """

    teacher: str
    names: np.ndarray
    prompts: np.ndarray
    teacher_passed: np.ndarray
    student_passed: np.ndarray
    teacher_ppl: np.ndarray
    student_ppl: np.ndarray
    cost: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


class Mixture(Protocol):
    """Gives every domain its share."""

    def __call__(self, domains: Domains, /) -> np.ndarray:
        """Weights [D] that are not negative and sum to 1."""
        ...


def smoothed(pull: np.ndarray, alpha: float) -> np.ndarray:
    """Shares by pull, [D]: alpha of all goes by it, the rest evenly; evenly altogether where nothing pulls."""
    total = pull.sum()
    share = pull / total if total > 0 else np.full(len(pull), 1 / len(pull))
    return alpha * share + (1 - alpha) / len(pull)


# Traits: `reads`, the fields of domains without which it cannot do.
mixture = marker("mixture")
