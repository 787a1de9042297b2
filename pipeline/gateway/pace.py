"""How many requests an endpoint is sent at once, found while it answers.

1. It starts at START, or at the ceiling (`concurrency`) where that is lower, and never passes the ceiling.
2. Until the first refusal every answer adds one, so a round trip doubles it; from then on a round trip adds one.
3. A refusal (429, 503) halves it, at most once per round trip: what was sent before a halving does not halve again.
4. It does not grow while answers take more than SLOWER times as long as they did at best, and more than FAST_S.
5. How long they take is an average in which each new answer weighs 1 / MEMORY.
"""

from __future__ import annotations

START = 8
# A server that works on many at once takes longer for each, and still answers more of them.
SLOWER = 4.0
FAST_S = 1.0
MEMORY = 8


class Pace:
    """The level of one endpoint: `level` requests may be in flight."""

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.level = float(min(START, ceiling))
        self.refusals = 0
        self._halved_at = float("-inf")
        self.latency = 0.0
        self._best = float("inf")

    def answered(self, seconds: float) -> None:
        """One answer came, this long after it was asked for."""
        self.latency += (seconds - self.latency) / (MEMORY if self.latency else 1)
        self._best = min(self._best, self.latency)
        if self.level < self.ceiling and self.latency <= max(FAST_S, SLOWER * self._best):
            self.level = min(self.ceiling, self.level + (1 / self.level if self.refusals else 1))

    def refused(self, sent_at: float, now: float) -> None:
        """The endpoint would not take one more, which was sent at `sent_at`."""
        self.refusals += 1
        if sent_at >= self._halved_at:
            self.level = max(1.0, self.level / 2)
            self._halved_at = now
