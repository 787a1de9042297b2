"""Who is asking for what: two processes that need the same answer at the same time do not both pay for it.

A claim counts as long as its owner holds a lock on a file of its own, which the system takes from it when it ends,
however it ends: nobody waits for the dead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
from filelock import FileLock, Timeout

from pipeline.errors import Refused
from pipeline.memo.home import asking, at_home
from pipeline.memo.store import Store

# Name of a claim that this process holds -> its store and lock, and for whom it is held.
_held: dict[str, tuple[Store, FileLock, Any]] = {}


@contextmanager
def claimed(store: Store, keys: Sequence[str]) -> Iterator[set[str]]:
    """Claim the keys that are neither known nor claimed, until the block ends."""
    name, ours = _claim(store, keys)
    try:
        yield ours
    finally:
        _release(store, name)


def let_go(whose: Any) -> None:
    """Release what this process holds for somebody elsewhere, who was lost."""
    for name, (store, _, holder) in list(_held.items()):
        if holder == whose:
            _release(store, name)


@at_home
def _claim(store: Store, keys: Sequence[str]) -> tuple[str, set[str]]:
    own = store.path.with_name(f"claim-{uuid4().hex[:16]}")
    with store.explained():
        own.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(own)
        lock.acquire()
    _held[own.name] = store, lock, asking()
    try:
        return own.name, _take(store, own, keys)
    except BaseException:
        _release(store, own.name)
        raise


@at_home
def _release(store: Store, name: str) -> None:
    if name not in _held:
        return  # it was let go
    _, lock, _ = _held.pop(name)
    # Where the disk is full they stay, and count as nothing.
    with suppress(Refused), store.transaction() as connection:
        connection.execute("DELETE FROM claims WHERE owner = ?", (name,))
    store.path.with_name(name).unlink(missing_ok=True)
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
