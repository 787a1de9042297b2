"""What happens to a teacher's run does not change its table, and nothing is paid twice.

After every fault the stage is run again. Its table has then the bytes of an undisturbed run, and the server has
counted, by body, how often each request was sent: once, and once more only what was in flight when a side died.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import CONCURRENCY, REQUESTS, SHARED, K, Process, Workspace, killed_at, small_files
from tests.faults.server import LOST, TOKENS, Server

pytestmark = pytest.mark.slow_server
Undisturbed = Callable[..., str]


def twice(server: Server) -> int:
    """How many bodies were asked twice; none was asked oftener."""
    asked = server.asked()
    assert max(asked.values()) <= 2
    return asked.total() - len(asked)


def goes_on(workspace: Workspace, server: Server, expected: str) -> int:
    """Run again: the table is right, and only what the memo had not was asked. Returns how many that were."""
    server.settle()
    before, kept = server.asked().total(), workspace.kept()
    workspace.run()
    assert workspace.digest() == expected
    assert server.asked().total() - before == REQUESTS - kept
    assert len(server.asked()) == REQUESTS
    return REQUESTS - kept


def shot(workspace: Workspace, server: Server, sign: signal.Signals, moment: int, when: str) -> Process:
    """A run of generate that the server sends a signal at its n-th answer."""
    return workspace.start(first=_be_shot, given=(replace(server, process=None), sign, moment, when))


def _be_shot(server: Server, sign: signal.Signals, moment: int, when: str) -> None:
    server.order(**server.orders, shoot=[os.getpid(), int(sign), moment, when])


# ------------------------------------------------------------------------------------------------ kill -9 of generate

DRAWN = random.Random(11)
MOMENTS = [(DRAWN.randint(2, REQUESTS - 1), DRAWN.choice(["before", "after"])) for _ in range(20)]


@pytest.mark.parametrize(("moment", "when"), [*MOMENTS, (1, "before"), (REQUESTS, "before"), (REQUESTS, "after")])
def test_killed_at_an_answer(
    workspace: Workspace, server: Server, undisturbed: Undisturbed, moment: int, when: str
) -> None:
    workspace.serve_by(server)
    assert shot(workspace, server, signal.SIGKILL, moment, when).end() == -signal.SIGKILL
    goes_on(workspace, server, undisturbed())
    assert twice(server) <= CONCURRENCY


PLACES = {
    "inside a transaction of the memo": ("sqlite3", "Connection.executemany", 3),
    "all answered and no row made": ("pipeline.tables.ids", "response_id", 1),
    "amid the rows of the second part": ("pipeline.tables.ids", "response_id", REQUESTS - 10),
    "the first part is being written": ("pipeline.tables.parquet", "_checked", 1),
    "a file without its end": ("pyarrow.parquet.core", "ParquetWriter.close", 1),
    "the last file without its end": ("pyarrow.parquet.core", "ParquetWriter.close", 2),
    "before the table appears": ("posix", "replace", 1),
    "the table is there and its record is not": ("pipeline.tables.parquet", "folder_digest", 1),
}


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_a_place(workspace: Workspace, server: Server, undisturbed: Undisturbed, place: str) -> None:
    workspace.serve_by(server)
    assert workspace.start(first=killed_at, given=PLACES[place]).end() == -signal.SIGKILL
    server.settle()
    asked = server.asked().total()
    assert goes_on(workspace, server, undisturbed()) == REQUESTS - asked + twice(server)
    assert twice(server) <= (CONCURRENCY if "memo" in place else 0)


@pytest.mark.parametrize("number", [3, 4])
def test_killed_amid_the_samples_of_one_reply(
    prepared: Workspace, workspace: Workspace, server: Server, undisturbed: Undisturbed, number: int
) -> None:
    """Samples that are asked for together are kept together: one of them alone would be asked with another seed."""
    for one in (calm := prepared.copy(workspace.root / "calm"), workspace):
        card = one.root / "data" / "models" / "teacher" / "model.json"
        card.write_text(json.dumps({**json.loads(card.read_text("utf-8")), "n": K}), "utf-8")
        one.serve_by(server)
    calm.run()
    assert server.asked().total() == REQUESTS // K
    assert (
        workspace.start(first=killed_at, given=("sqlite3", "Connection.executemany", number)).end() == -signal.SIGKILL
    )
    server.settle()
    workspace.run()
    assert workspace.digest() == calm.digest()


def test_killed_again_and_again(workspace: Workspace, server: Server, undisturbed: Undisturbed) -> None:
    workspace.serve_by(server)
    deaths = 6
    for _ in range(deaths):
        assert shot(workspace, server, signal.SIGKILL, server.given().total() + 25, "after").end() == -signal.SIGKILL
        server.settle()
    goes_on(workspace, server, undisturbed())
    assert server.asked().total() - REQUESTS <= deaths * CONCURRENCY


# ------------------------------------------------------------------------------------------------ the server is away


def test_the_server_is_down_at_the_start(workspace: Workspace, server: Server, undisturbed: Undisturbed) -> None:
    workspace.serve_by(server)
    server.kill()
    assert "what was received is kept" in workspace.run(code=75)
    server.start()
    goes_on(workspace, server, undisturbed())
    assert twice(server) == 0


def test_the_server_dies_amid_the_run_and_stays_away(
    workspace: Workspace, server: Server, undisturbed: Undisturbed
) -> None:
    server.order(die_every=90)
    workspace.serve_by(server, retries=1)
    assert "what was received is kept" in workspace.run(code=75)
    server.wait_dead()
    server.orders = {}
    server.start()
    assert goes_on(workspace, server, undisturbed()) > REQUESTS // 2
    assert twice(server) <= CONCURRENCY


@contextmanager
def kept_alive(server: Server) -> Iterator[list[int]]:
    """Start the server again whenever it dies; counts its deaths."""
    deaths: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while True:
            server.wait_dead()
            if over.is_set():
                return
            deaths.append(server.asked().total())
            server.start()

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield deaths
    finally:
        over.set()
        assert server.process is not None
        server.process.kill()
        watching.join()
        server.start()


@pytest.mark.parametrize("every", [90, 30])
def test_the_server_dies_and_comes_back(
    workspace: Workspace, server: Server, undisturbed: Undisturbed, every: int
) -> None:
    server.order(die_every=every)
    workspace.serve_by(server)
    with kept_alive(server) as deaths:
        workspace.run()
    assert workspace.digest() == undisturbed()
    assert len(deaths) >= REQUESTS // every
    assert 0 < server.asked().total() - REQUESTS <= len(deaths) * CONCURRENCY


# ------------------------------------------------------------------------------------------------ bad answers

PASSING: dict[str, dict[str, Any]] = {
    "a storm of 429": {"fault": "429", "storm": [50, 70]},
    "a storm of 429 with Retry-After": {"fault": "429", "storm": [50, 70], "retry_after": "0.1"},
    "a storm of 503 with Retry-After": {"fault": "503", "storm": [1, 10], "retry_after": "0.1"},
    "500": {"fault": "500", "share": 0.1},
    "hung sockets": {"fault": "hang", "share": 0.05},
    "truncated JSON": {"fault": "truncated", "share": 0.1},
    "cut connections": {"fault": "cut", "share": 0.1},
    "no choices": {"fault": "choices", "share": 0.1},
}


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes(workspace: Workspace, server: Server, undisturbed: Undisturbed, name: str) -> None:
    orders = PASSING[name]
    server.order(**orders)
    workspace.serve_by(server, timeout_s=0.5 if "hung" in name else 20)
    workspace.run()
    assert workspace.digest() == undisturbed()
    # Every body was answered once, after the times that it was not.
    assert set(server.given().values()) == {1}
    if "storm" in orders:
        refused = orders["storm"][1] - orders["storm"][0]
        asked = server.asked().total()
        assert asked == REQUESTS + refused
    else:
        assert set(server.asked().values()) == {1, 2}
    goes_on(workspace, server, undisturbed())


def test_the_same_answer_twice_on_one_connection(
    workspace: Workspace, server: Server, undisturbed: Undisturbed
) -> None:
    """An answer that nobody asked for is never taken for the next one's."""
    server.order(fault="twice", share=0.3)
    workspace.serve_by(server)
    workspace.run()
    assert workspace.digest() == undisturbed()
    assert twice(server) <= CONCURRENCY


@pytest.mark.parametrize("odd", ["empty", "null", "utf8", "surrogate", "megabyte", "two_choices"])
def test_an_odd_answer_is_an_answer(workspace: Workspace, server: Server, undisturbed: Undisturbed, odd: str) -> None:
    orders = {"odd": odd, "share": 0.02 if odd == "megabyte" else 0.1}
    server.order(**orders)
    workspace.serve_by(server)
    assert shot(workspace, server, signal.SIGKILL, REQUESTS // 2, "after").end() == -signal.SIGKILL
    goes_on(workspace, server, undisturbed(**orders))
    assert twice(server) <= CONCURRENCY


def test_an_answer_of_another_model(workspace: Workspace, server: Server, undisturbed: Undisturbed) -> None:
    server.order(fault="model", share=0.02)
    workspace.serve_by(server)
    assert "answered as 'another'" in workspace.run(code=1)
    server.order()
    goes_on(workspace, server, undisturbed())
    assert twice(server) <= CONCURRENCY


@pytest.mark.parametrize("fault", ["400", "500", "truncated"])
def test_requests_that_fail_for_good(
    workspace: Workspace, server: Server, undisturbed: Undisturbed, fault: str
) -> None:
    server.order(fault=fault, share=0.1)
    workspace.serve_by(server, retries=0)
    assert "max_failure_rate" in workspace.run(code=1)
    failed = server.asked().total() - workspace.kept()
    server.order()
    again = goes_on(workspace, server, undisturbed())
    assert failed <= again
    assert twice(server) == failed > 0


# ------------------------------------------------------------------------------------------------ the memo


def test_the_disk_is_full(workspace: Workspace, server: Server, undisturbed: Undisturbed) -> None:
    workspace.serve_by(server)
    process = workspace.start(first=small_files, given=(100_000,))
    assert process.end() == 1
    assert "Make room on its disk" in process.said
    assert 0 < workspace.kept() < REQUESTS
    goes_on(workspace, server, undisturbed())
    assert twice(server) <= CONCURRENCY


@pytest.mark.parametrize("damage", ["cut off", "garbage"])
def test_the_memo_s_last_record_is_torn(
    workspace: Workspace, server: Server, undisturbed: Undisturbed, damage: str
) -> None:
    workspace.serve_by(server)
    assert shot(workspace, server, signal.SIGKILL, REQUESTS // 2, "after").end() == -signal.SIGKILL
    whole = kept_in_a_copy(workspace)
    log = workspace.memo / "requests.sqlite-wal"
    content, kept = log.read_bytes(), whole
    for end in reversed(ends_of_records(content)):
        log.write_bytes(content[: end - 1000] + (b"" if damage == "cut off" else b"\xa5" * 1000 + content[end:]))
        kept = kept_in_a_copy(workspace)
        if kept < whole:
            break
    assert 0 < kept < whole
    goes_on(workspace, server, undisturbed())
    assert twice(server) <= CONCURRENCY + whole - kept


def ends_of_records(log: bytes) -> list[int]:
    """Where frames end that have the salt of the head: SQLite reads no other (sqlite.org/fileformat2.html)."""
    frame = 24 + int.from_bytes(log[8:12], "big")
    starts = range(32, len(log) - frame + 1, frame)
    return [at + frame for at in itertools.takewhile(lambda at: log[at + 8 : at + 16] == log[16:24], starts)]


def kept_in_a_copy(workspace: Workspace) -> int:
    """How many answers the memo holds, found without touching it: whoever closes it last tidies its log."""
    there = workspace.memo.with_name("looked-at")
    shutil.rmtree(there, ignore_errors=True)
    there.mkdir()
    for name in ("requests.sqlite", "requests.sqlite-wal"):
        shutil.copy(workspace.memo / name, there / name)
    with sqlite3.connect(there / "requests.sqlite") as connection:
        return connection.execute("SELECT count(*) FROM memo").fetchone()[0]


# ------------------------------------------------------------------------------------------------ two at once


def test_two_instances_that_share_prompts(workspace: Workspace, server: Server, undisturbed: Undisturbed) -> None:
    workspace.serve_by(server)
    both = [workspace.start("generate", name) for name in ("teacher", "other")]
    assert [process.end() for process in both] == [0, 0], [process.said for process in both]
    assert workspace.digest("teacher") == undisturbed("teacher")
    assert workspace.digest("other") == undisturbed("other")
    assert server.asked().total() == len(server.asked()) == 2 * REQUESTS - SHARED * K


@pytest.fixture
def beside(prepared: Workspace, workspace: Workspace, tmp_path: Path) -> Workspace:
    """Another checkout that uses the memo of `workspace`, as a temporary experiment does."""
    return prepared.copy(tmp_path / "beside", shared=workspace.root)


def test_two_processes_that_ask_all_the_same(
    workspace: Workspace, beside: Workspace, server: Server, undisturbed: Undisturbed
) -> None:
    both = [workspace, beside]
    for one in both:
        one.serve_by(server)
    processes = [one.start() for one in both]
    assert [process.end() for process in processes] == [0, 0], [process.said for process in processes]
    assert {one.digest() for one in both} == {undisturbed()}
    assert server.asked().total() == len(server.asked()) == REQUESTS


def one_asks_and_one_waits(workspace: Workspace, beside: Workspace, server: Server) -> tuple[Process, Process]:
    """Two processes that need the same answers, held where the first has 20 of them."""
    for one in (workspace, beside):
        one.serve_by(server)
    server.order(hold_at=20)
    asking = workspace.start()
    server.until_given(20)
    waiting = beside.start()
    waiting.until_said("waiting for its answers")
    return asking, waiting


def test_one_of_two_is_killed_and_the_other_takes_over(
    workspace: Workspace, beside: Workspace, server: Server, undisturbed: Undisturbed
) -> None:
    victim, other = one_asks_and_one_waits(workspace, beside, server)
    os.kill(victim.pid, signal.SIGKILL)
    server.order()
    assert victim.end() == -signal.SIGKILL
    assert other.end() == 0, other.said
    assert beside.digest() == undisturbed()
    assert twice(server) <= CONCURRENCY
    assert goes_on(workspace, server, undisturbed()) == 0


def test_one_who_waits_can_be_stopped(
    workspace: Workspace, beside: Workspace, server: Server, undisturbed: Undisturbed
) -> None:
    asking, waiting = one_asks_and_one_waits(workspace, beside, server)
    os.kill(waiting.pid, signal.SIGINT)
    assert waiting.end() == 130, waiting.said
    server.order()
    assert asking.end() == 0, asking.said
    assert workspace.digest() == undisturbed()
    assert twice(server) == 0


def test_one_instance_is_not_run_twice_at_once(workspace: Workspace, server: Server, undisturbed: Undisturbed) -> None:
    workspace.serve_by(server)
    server.order(hold_at=20)
    first = workspace.start()
    server.until_given(20)
    assert "already running" in workspace.run(code=75)
    server.order()
    assert first.end() == 0, first.said
    assert workspace.digest() == undisturbed()
    assert twice(server) == 0


# ------------------------------------------------------------------------------------------------ stopped on purpose


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c(workspace: Workspace, server: Server, undisturbed: Undisturbed, workers: int) -> None:
    """A process of its own, as in a terminal, which sends the signal to all that were started there."""
    workspace.serve_by(server, workers=workers)
    server.order(hold_at=70)
    command = [sys.executable, "-m", "pipeline", "generate", "teacher"]
    with subprocess.Popen(
        command, cwd=workspace.root, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        server.until_given(70)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "what was received is kept" in said
    assert "Traceback" not in said
    server.order()
    goes_on(workspace, server, undisturbed())
    assert twice(server) <= workers * CONCURRENCY


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_killed_with_its_workers(
    workspace: Workspace, server: Server, undisturbed: Undisturbed, sign: signal.Signals
) -> None:
    """Who is killed takes its workers along: nothing is asked after it."""
    workspace.serve_by(server, workers=2)
    server.order(hold_at=70)
    process = workspace.start()
    server.until_given(70)
    os.kill(process.pid, sign)
    assert process.end() == -sign
    server.order()
    goes_on(workspace, server, undisturbed())
    assert twice(server) <= 2 * CONCURRENCY


@pytest.mark.parametrize("moment", [1, 50, 120, REQUESTS - 1])
def test_ctrl_c_at_an_answer(workspace: Workspace, server: Server, undisturbed: Undisturbed, moment: int) -> None:
    workspace.serve_by(server)
    process = shot(workspace, server, signal.SIGINT, moment, "after")
    assert process.end() == 130, process.said
    assert "what was received is kept" in process.said
    goes_on(workspace, server, undisturbed())
    assert twice(server) <= CONCURRENCY


def test_a_cap_is_reached(workspace: Workspace, server: Server, undisturbed: Undisturbed) -> None:
    cap = REQUESTS * TOKENS // 2
    workspace.serve_by(server, max_tokens=cap)
    assert "max_tokens" in workspace.run(code=76)
    assert 0 < server.tokens() <= cap
    assert workspace.kept() == server.given().total()
    workspace.serve_by(server, max_tokens=10 * cap)
    goes_on(workspace, server, undisturbed())
    assert twice(server) == 0


@pytest.mark.parametrize("fault", LOST)
def test_answers_that_are_lost_count_for_a_cap(
    workspace: Workspace, server: Server, undisturbed: Undisturbed, fault: str
) -> None:
    """A server bills what it answered, whether that arrived or not."""
    cap = REQUESTS * TOKENS // 2
    server.order(fault=fault, share=0.3)
    workspace.serve_by(server, max_tokens=cap, timeout_s=2 if fault == "hang" else 20)
    workspace.run(code=76)
    assert server.given().total() * TOKENS < server.tokens() <= cap
    assert workspace.kept() == server.given().total()
    server.order()
    workspace.serve_by(server, max_tokens=100 * cap)
    goes_on(workspace, server, undisturbed())


def test_two_instances_share_a_cap(workspace: Workspace, server: Server, undisturbed: Undisturbed) -> None:
    cap = REQUESTS * TOKENS // 2
    workspace.serve_by(server, max_tokens=cap)
    both = [workspace.start("generate", name) for name in ("teacher", "other")]
    assert [process.end() for process in both] == [76, 76], [process.said for process in both]
    assert 0 < server.tokens() <= cap
    assert workspace.kept() == server.given().total()
    workspace.serve_by(server, max_tokens=10 * cap)
    for name in ("teacher", "other"):
        workspace.run("generate", name)
        assert workspace.digest(name) == undisturbed(name)
    assert twice(server) == 0
    assert len(server.asked()) == 2 * REQUESTS - SHARED * K


def test_a_killed_run_never_lets_a_cap_be_passed(
    workspace: Workspace, server: Server, undisturbed: Undisturbed
) -> None:
    """What was in flight at the kill may have been billed: it counts in full."""
    cap = REQUESTS * TOKENS // 2
    workspace.serve_by(server, max_tokens=cap)
    assert shot(workspace, server, signal.SIGKILL, 20, "before").end() == -signal.SIGKILL
    server.settle()
    workspace.run(code=76)
    assert server.tokens() <= cap
    workspace.serve_by(server)
    goes_on(workspace, server, undisturbed())
    assert twice(server) <= CONCURRENCY
