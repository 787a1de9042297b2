"""The workspace's own database, beside the graph: `data/.memo/requests.sqlite`, in SQLite's WAL mode.

Several processes may use it at once, and one killed at any moment leaves every finished transaction and nothing of an
unfinished one. Deleting it costs time or money, never truth.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.core.machine import alone_in
from pipeline.errors import Refused, TryAgain

FILE = "requests.sqlite"
BUSY_S = 60.0
# What SQLite says when the disk, and not this code, is at fault.
OUTSIDE = (
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
)  # fmt: skip
TABLES = (
    "CREATE TABLE IF NOT EXISTS memo (key TEXT PRIMARY KEY, put_at REAL NOT NULL, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS readings (key TEXT PRIMARY KEY, put_at REAL NOT NULL, value BLOB NOT NULL)",
    # Whose a reading is: conversations that are equal are read once.
    "CREATE TABLE IF NOT EXISTS read_of (key TEXT NOT NULL, prompt_id TEXT NOT NULL, PRIMARY KEY (key, prompt_id)) "
    "WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS spending (endpoint TEXT PRIMARY KEY, tokens INTEGER NOT NULL, cost_usd REAL NOT NULL)",
)
# What was received, and what was read.
KEPT = ("memo", "readings")

_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


def _close_all() -> None:
    for store in list(_open_stores):
        store.close()


# A connection carried over a fork believes in locks that the child does not hold, and may lose what it writes.
os.register_at_fork(before=_close_all)


@functools.cache
def _told(kind: type[Store], folder: Path) -> Store:
    return kind(folder)


class Store:
    """A connection to the database of a folder, opened when it is first used."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._opened: sqlite3.Connection | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process has a connection of its own, one for all that it is told of.
        return _told, (type(self), self.path.parent)

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, opened when it is first used, and again after `close`."""
        if self._opened is None:
            with self.explained():
                self._opened = self._open()
            _open_stores.add(self)
        return self._opened

    def _open(self) -> sqlite3.Connection:
        alone_in(self.path.parent)
        # The change to WAL does not wait for other processes as everything after it does.
        with FileLock(f"{self.path}.lock", timeout=BUSY_S):
            connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            # NORMAL: a put costs no fsync and outlives the process; only a power cut may lose the last ones.
            connection.execute("PRAGMA synchronous = NORMAL")
            for table in TABLES:
                connection.execute(table)
            for table in KEPT:
                # Whether it was paid for: 1, 0 where this machine can compute it again, null where nobody noted it.
                if all(name != "paid" for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")):
                    connection.execute(f"ALTER TABLE {table} ADD COLUMN paid INTEGER")
        return connection

    def close(self) -> None:
        """Let go of the database; the next use opens it again."""
        if self._opened is not None:
            self._opened.close()
        self._opened = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is written inside, or nothing of it."""
        connection = self.connection
        with self.explained():
            # Ctrl-C may come as a transaction begins, which is where it waits for others: inside, so that it is undone.
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # A full disk makes SQLite roll back by itself.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def explained(self) -> Iterator[None]:
        """SQLite's errors in the user's words."""
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or isinstance(error, TimeoutError):
                raise TryAgain(f"{self.path} was held by another process for {BUSY_S:.0f} s. Try again.") from error
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise Refused(
                    f"{self.path} is damaged ({error}). Move it away and run `stillhouse memo fill`, which learns "
                    f"the recorded answers again; nothing in the tables depends on it."
                ) from error
            if code not in OUTSIDE:
                raise
            raise Refused(
                f"the memo {self.path} cannot be used: {error}. Everything put before is kept. Make room on its "
                f"disk, or mend its permissions, and run this again: what is known will not be asked for again."
            ) from error
