"""What each endpoint has cost, and the caps that end a run before more is spent.

The count covers all that was ever asked through this workspace's memo, by any number of processes at once. A request's
most possible cost is reserved before it is sent and replaced by its real cost when its answer is there, so a cap is
never passed. What is not known counts in full: answers without usage, requests without an answer that can be read, and
what was in flight when a process was killed. A request that was refused (HTTP 400 and above) counts as nothing.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import CapReached
from pipeline.memo.home import at_home
from pipeline.memo.store import Store


@dataclass(frozen=True)
class Spent:
    """Tokens of prompts and answers, and US dollars."""

    tokens: int
    cost_usd: float


class Ledger:
    """The spending of one endpoint, under its caps (`run.endpoints.<name>.max_tokens` and `.max_cost`)."""

    def __init__(self, folder: Path, endpoint: str, max_tokens: int | None, max_cost: float | None) -> None:
        self.store, self.endpoint = Store(folder), endpoint
        self.max_tokens, self.max_cost = max_tokens, max_cost

    @property
    def capped(self) -> bool:
        """Whether anything must be reserved before it is spent."""
        return self.max_tokens is not None or self.max_cost is not None

    def reserve(self, tokens: int, cost: float) -> None:
        """Count the most that a request may cost; raises `CapReached` if a cap would be passed, and counts nothing."""
        if self.capped:
            self._reserve(tokens, cost)

    @at_home
    def _reserve(self, tokens: int, cost: float) -> None:
        with self.store.transaction() as connection:
            spent = self._spent(connection)
            self._check("max_tokens", self.max_tokens, spent.tokens, tokens, "tokens")
            self._check("max_cost", self.max_cost, spent.cost_usd, cost, "US dollars")
            self._add(connection, tokens, cost)

    def _check(self, name: str, cap: float | None, spent: float, more: float, unit: str) -> None:
        if cap is not None and spent + more > cap:
            raise CapReached(
                f"run.endpoints.{self.endpoint}.{name} is {cap:,g} {unit}: {spent:,.6g} are spent or in flight, and "
                f"the next request may need {more:,.6g}. What was received is kept. Raise {name} and run this again: "
                f"only the rest is asked for."
            )

    @at_home
    def settle(self, reserved_tokens: int, reserved_cost: float, tokens: int, cost: float) -> None:
        """Replace what was reserved by what it was."""
        if not self.capped:
            reserved_tokens, reserved_cost = 0, 0.0
        with self.store.transaction() as connection:
            self._add(connection, tokens - reserved_tokens, cost - reserved_cost)

    @at_home
    def spent(self) -> Spent:
        """All that is spent, and reserved for what is in flight."""
        with self.store.explained():
            return self._spent(self.store.connection)

    def _spent(self, connection: sqlite3.Connection) -> Spent:
        row = connection.execute(
            "SELECT tokens, cost_usd FROM spending WHERE endpoint = ?", (self.endpoint,)
        ).fetchone()
        return Spent(*row) if row else Spent(0, 0.0)

    def _add(self, connection: sqlite3.Connection, tokens: int, cost: float) -> None:
        connection.execute(
            "INSERT INTO spending VALUES (?, ?, ?) ON CONFLICT (endpoint) DO UPDATE SET "
            "tokens = tokens + excluded.tokens, cost_usd = cost_usd + excluded.cost_usd",
            (self.endpoint, tokens, cost),
        )


def spent_by_endpoint(folder: Path) -> dict[str, Spent]:
    """What every endpoint has cost that was ever asked through the memo of a folder."""
    store = Store(folder)
    with store.explained():
        rows = store.connection.execute("SELECT endpoint, tokens, cost_usd FROM spending ORDER BY endpoint").fetchall()
    return {endpoint: Spent(tokens, cost) for endpoint, tokens, cost in rows}
