"""The store: whatever ends a transaction, and whenever, its lock is let go."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pipeline.memo.store import Store


def test_ctrl_c_as_a_transaction_begins_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others write too, a transaction waits to begin, and so this is where Ctrl-C finds it."""
    monkeypatch.setattr("pipeline.memo.store.BUSY_S", 0.05)
    store, other = Store(tmp_path), Store(tmp_path)
    connections = store.connection, other.connection

    def interrupt(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_return" and connections[0].in_transaction:
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt) as caught, store.transaction():
            pass
    finally:
        sys.setprofile(None)
    # The traceback is alive, as it is while a run cleans up after Ctrl-C.
    assert caught.tb is not None
    with other.transaction():
        pass
