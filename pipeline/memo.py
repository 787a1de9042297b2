"""The memo: what a model answered once is never asked for again.

One SQLite database under `data/.memo/`, outside the graph: deleting it costs time or money, never truth. It is in
WAL mode, so several processes may use it at once, and a process killed at any moment leaves every finished `put` and
nothing of an unfinished one. Values are JSON text: `sqlite3 data/.memo/requests.sqlite` shows them.
"""

from __future__ import annotations

import os
import sqlite3
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from pipeline import ids
from pipeline.errors import Refused, TryAgain
from pipeline.protocol import Messages, Sampling

FILE = "requests.sqlite"
BUSY_S = 60.0
# What SQLite says when the disk, and not this code, is at fault.
OUTSIDE = (
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
)  # fmt: skip
# The columns of `responses` that make an answer again.
ANSWER = (
    "request_id", "content", "finish_reason", "reasoning", "token_ids", "logprobs", "error", "prompt_tokens",
    "completion_tokens", "cost_usd",
)  # fmt: skip


def request_key(messages: Messages, model_id: str, sampling: Sampling, sample: int, seed: int, engine: str = "") -> str:
    """The id of one request: all that determines its answer. `engine` names what else does, such as the dtype.

    The number of samples is not in it, so asking for 16 where 8 were asked before asks for 8 more.
    """
    return ids.digest("request", ids.prompt_id(messages), model_id, asdict(sampling), sample, seed, engine)


@dataclass(frozen=True)
class Stats:
    """What a memo holds; `oldest` and `newest` are seconds since 1970, null if it is empty."""

    entries: int
    bytes: int
    oldest: float | None
    newest: float | None


_open_memos: weakref.WeakSet[Memo] = weakref.WeakSet()


def _close_all() -> None:
    for memo in list(_open_memos):
        memo.close()


# A connection carried over a fork believes in locks that the child does not hold, and may lose what it writes.
os.register_at_fork(before=_close_all)


class Memo:
    """Keys to JSON objects, kept in a folder. A key's first value stays: later ones are ignored."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._opened: sqlite3.Connection | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, opened when it is first used, and again after `close`."""
        if self._opened is None:
            with self._explained():
                self._opened = self._open()
            _open_memos.add(self)
        return self._opened

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # The change to WAL does not wait for other processes as everything after it does.
        with FileLock(f"{self.path}.lock", timeout=BUSY_S):
            connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            # NORMAL: a put costs no fsync and outlives the process; only a power cut may lose the last ones.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS memo (key TEXT PRIMARY KEY, put_at REAL NOT NULL, value TEXT NOT NULL)"
            )
        return connection

    def close(self) -> None:
        """Let go of the database; the next use opens it again."""
        if self._opened is not None:
            self._opened.close()
        self._opened = None

    def get(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The values of those keys that are known."""
        asked = orjson.dumps(list(keys)).decode()
        with self._explained():
            rows = self.connection.execute(
                "SELECT memo.key, memo.value FROM json_each(?) AS asked JOIN memo ON memo.key = asked.value", (asked,)
            )
            return {key: orjson.loads(value) for key, value in rows}

    def put(self, items: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep these values in one transaction: all of them, or none if it is cut short."""
        now = time.time()
        rows = [(k, now, orjson.dumps(v, option=orjson.OPT_SERIALIZE_NUMPY).decode()) for k, v in items.items()]
        with self._transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO memo VALUES (?, ?, ?)", rows)

    def stats(self) -> Stats:
        """How much is kept, and since when."""
        with self._explained():
            query = "SELECT count(*), min(put_at), max(put_at) FROM memo"
            entries, oldest, newest = self.connection.execute(query).fetchone()
        files = [self.path, self.path.with_name(FILE + "-wal")]
        return Stats(entries, sum(f.stat().st_size for f in files if f.exists()), oldest, newest)

    def prune(self, older_than_days: float) -> int:
        """Forget what was put longer ago than this and give its room back; returns how many values went."""
        with self._transaction() as connection:
            oldest = time.time() - older_than_days * 86400
            gone = connection.execute("DELETE FROM memo WHERE put_at < ?", (oldest,)).rowcount
        with self._explained():
            self.connection.execute("VACUUM")
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return gone

    def fill(self, files: Iterable[Path]) -> int:
        """Learn the answers of recorded `responses` files, so that a clone asks for none of them; returns how many."""
        learnt = 0
        for file in files:
            for batch in pq.ParquetFile(file).iter_batches(columns=list(ANSWER)):
                rows = batch.filter(pc.is_null(batch["error"])).to_pylist()
                before = self.connection.total_changes
                self.put({row["request_id"]: row for row in rows})
                learnt += self.connection.total_changes - before
        return learnt

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self.connection
        with self._explained():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # A full disk makes SQLite roll back by itself.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
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
