"""Claims: what one process asks for, no other does; the dead claim nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from pipeline.memo.claims import claimed
from pipeline.memo.memo import Memo

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def memo(tmp_path: Path) -> Memo:
    return Memo(tmp_path / "memo")


def test_what_is_known_or_claimed_is_not_ours(memo: Memo) -> None:
    memo.put({"known": {"v": 1}})
    other = Memo(memo.path.parent)
    with claimed(memo, ["known", "a", "b"]) as ours:
        assert ours == {"a", "b"}
        with claimed(other, ["known", "b", "c"]) as theirs:
            assert theirs == {"c"}
    with claimed(other, ["a", "b", "c"]) as free:
        assert free == {"a", "b", "c"}
    assert not list(memo.path.parent.glob("claim-*"))


def test_an_error_ends_a_claim(memo: Memo) -> None:
    with pytest.raises(ZeroDivisionError), claimed(memo, ["a"]):
        raise ZeroDivisionError
    with claimed(memo, ["a"]) as ours:
        assert ours == {"a"}


def _claim_and_wait(memo: Memo, told: Connection) -> None:
    with claimed(memo, ["a", "b"]):
        told.send("claimed")
        told.recv()


def test_the_claims_of_a_killed_process_are_free(memo: Memo) -> None:
    hear, told = FORK.Pipe()
    owner = FORK.Process(target=_claim_and_wait, args=(memo, told))
    owner.start()
    hear.recv()
    with claimed(memo, ["a", "c"]) as ours:
        assert ours == {"c"}
    assert owner.pid is not None
    os.kill(owner.pid, signal.SIGKILL)
    owner.join()
    with claimed(memo, ["a", "b"]) as ours:
        assert ours == {"a", "b"}
    assert not list(memo.path.parent.glob("claim-*"))
