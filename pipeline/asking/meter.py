"""How asking goes, told on one line."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pipeline.core.run import How
from pipeline.display import duration
from pipeline.kinds.backend import (
    Answer,
)


class Meter:
    """How asking goes, on one line: answers, tokens a second, cost, failures, and what is left of the time."""

    def __init__(self, total: int, how: How) -> None:
        self.total, self.how = total, how
        self.done = self.failed = self.tokens = 0
        self.cost = 0.0
        self.started = time.monotonic()

    def count(self, answers: Sequence[Answer]) -> None:
        """Count these answers."""
        for answer in answers:
            self.done += 1
            self.failed += answer.error is not None
            self.tokens += answer.completion_tokens or 0
            self.cost += answer.cost_usd or 0.0
        self.how.progress(self.done, self.total, self)

    def __str__(self) -> str:
        seconds = max(time.monotonic() - self.started, 1e-9)
        parts = ["answers"]
        if self.tokens:
            parts.append(f"{self.tokens / seconds:,.0f} tokens/s")
        if self.cost:
            parts.append(f"${self.cost:,.4g}")
        parts.append(f"{self.failed / self.done:.1%} failed")
        if self.done < self.total:
            parts.append(f"{duration(seconds / self.done * (self.total - self.done))} left")
        return ", ".join(parts)
