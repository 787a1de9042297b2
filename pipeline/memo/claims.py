"""Who is asking for what: two processes that need the same answer at the same time do not both pay for it.

A claim counts as long as its owner holds a lock on a file of its own, which the system takes from it when it ends,
however it ends: nobody waits for the dead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import orjson
from filelock import FileLock, Timeout

from pipeline.errors import Refused
from pipeline.memo.store import Store


@contextmanager
def claimed(store: Store, keys: Sequence[str]) -> Iterator[set[str]]:
    """Claim the keys that are neither known nor claimed, until the block ends."""
    own = store.path.with_name(f"claim-{uuid4().hex[:16]}")
    with store.explained():
        own.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(own)
        lock.acquire()
    try:
        yield _take(store, own, keys)
    finally:
        # Where the disk is full they stay, and count as nothing.
        with suppress(Refused), store.transaction() as connection:
            connection.execute("DELETE FROM claims WHERE owner = ?", (own.name,))
        own.unlink(missing_ok=True)
        lock.release()


def _take(store: Store, own: Path, keys: Sequence[str]) -> set[str]:
    """Claim in one transaction what is free, and what belongs to the dead."""
    with store.transaction() as connection:
        for (owner,) in connection.execute("SELECT DISTINCT owner FROM claims").fetchall():
            if not _alive(own.with_name(owner)):
                connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))
        connection.execute(
            "INSERT OR IGNORE INTO claims SELECT asked.value, ? FROM json_each(?) AS asked "
            "WHERE NOT EXISTS (SELECT 1 FROM memo WHERE memo.key = asked.value)",
            (own.name, orjson.dumps(keys).decode()),
        )
        return {key for (key,) in connection.execute("SELECT key FROM claims WHERE owner = ?", (own.name,))}


def _alive(owner: Path) -> bool:
    with suppress(Timeout), FileLock(owner, timeout=0):
        owner.unlink(missing_ok=True)
        return False
    return True
