"""The memo: kept is kept, whatever happens to the process or the disk."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.asking.ask import ask
from pipeline.contracts import RESPONSES
from pipeline.core.run import How
from pipeline.core.settings import Endpoint, RunSettings
from pipeline.errors import Refused, TryAgain
from pipeline.kinds.backend import Answer, GenerateRequest, Reading, Sampling, Tokens, Want, computed_here, engine_of
from pipeline.memo.memo import Memo, reading_key, request_keys
from pipeline.memo.store import FILE
from pipeline.tables import ids, parquet, tensors
from tests.servers import MODEL, serving

FORK = multiprocessing.get_context("fork")
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=8)


def request_key(prompt: str, model: str, sampling: Sampling, sample: int, seed: int, *how: Any) -> str:
    [key] = request_keys(prompt, model, sampling, [(sample, seed)], *how)
    return key


@pytest.fixture
def memo(tmp_path: Path) -> Memo:
    return Memo(tmp_path / "memo")


def kept(memo: Memo, *keys: str) -> dict:
    return memo.get(keys)


def test_values_come_back_as_they_were_put(memo: Memo) -> None:
    answer = Answer("k", "é\0\n", "stop", token_ids=[1, 2], logprobs=[-0.1, -1e-12], cost_usd=0.1)
    reading = {"topk": np.array([[1, 2], [3, 4]], np.int32), "p": np.array([0.1, 0.7], np.float32)}
    memo.put({"k": asdict(answer), "reading": reading})
    found = memo.get(["k", "unknown", "reading"])
    assert Answer(**found["k"]) == answer
    assert found["reading"]["topk"] == [[1, 2], [3, 4]]
    assert np.array_equal(np.array(found["reading"]["p"], np.float32), reading["p"])
    assert found.keys() == {"k", "reading"}


def test_many_keys_are_one_question(memo: Memo) -> None:
    memo.put({f"k{i}": {"i": i} for i in range(50_000)})
    assert len(memo.get(f"k{i}" for i in range(60_000))) == 50_000


def test_the_first_value_stays(memo: Memo) -> None:
    memo.put({"k": {"v": 1}})
    memo.put({"k": {"v": 2}, "l": {"v": 3}})
    assert memo.get(["k", "l"]) == {"k": {"v": 1}, "l": {"v": 3}}


def test_a_key_names_all_that_determines_an_answer() -> None:
    key = request_key("a", "m", SAMPLING, 0, 1)
    assert key == request_key("a", "m", replace(SAMPLING), 0, 1)
    others = [
        request_key("b", "m", SAMPLING, 0, 1),
        request_key("a", "n", SAMPLING, 0, 1),
        request_key("a", "m", replace(SAMPLING, temperature=0.5), 0, 1),
        request_key("a", "m", replace(SAMPLING, top_p=0.5), 0, 1),
        request_key("a", "m", replace(SAMPLING, max_tokens=9), 0, 1),
        request_key("a", "m", replace(SAMPLING, stop=("x",)), 0, 1),
        request_key("a", "m", SAMPLING, 1, 1),
        request_key("a", "m", SAMPLING, 0, 2),
        request_key("a", "m", SAMPLING, 0, 1, "bfloat16"),
        request_key("a", "m", SAMPLING, 0, 1, "", [5, 6]),
        request_key("a", "m", SAMPLING, 0, 1, "", [5, 7]),
    ]
    assert len({key, *others}) == 12


def _write_without_end(memo: Memo, told: Connection) -> None:
    for number in range(10**6):
        memo.put({f"{number}-{i}": {"number": number, "fill": "x" * 500} for i in range(5)})
        told.send(number)


@pytest.mark.parametrize("moment", [1, 7, 150])
def test_a_process_killed_while_writing_loses_no_finished_put(memo: Memo, moment: int) -> None:
    hear, told = FORK.Pipe(duplex=False)
    writer = FORK.Process(target=_write_without_end, args=(memo, told))
    writer.start()
    last = next(n for n in iter(hear.recv, None) if n == moment)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    told.close()
    while hear.poll():
        try:
            last = hear.recv()
        except EOFError:
            break
    for number in range(last + 3):
        found = len(kept(memo, *(f"{number}-{i}" for i in range(5))))
        assert found == 5 if number <= last else found in (0, 5)
    memo.put({"after": {"v": 1}})
    assert kept(memo, "after") == {"after": {"v": 1}}


@pytest.mark.parametrize("cut", [1, 1000, 5000, 30_000])
def test_a_torn_tail_loses_only_whole_puts_from_the_end(memo: Memo, tmp_path: Path, cut: int) -> None:
    for number in range(20):
        memo.put({f"{number}-{i}": {"fill": "x" * 500} for i in range(3)})
    torn = tmp_path / "torn"
    torn.mkdir()
    shutil.copy(memo.path, torn / FILE)
    log = memo.path.with_name(FILE + "-wal").read_bytes()
    (torn / (FILE + "-wal")).write_bytes(log[:-cut] + b"\0" * (cut // 2))
    found = [len(kept(Memo(torn), *(f"{n}-{i}" for i in range(3)))) for n in range(20)]
    whole = found.count(3)
    assert found == [3] * whole + [0] * (20 - whole)
    assert 0 < whole < 20


def _put_all(memo: Memo, writer: int) -> None:
    for number in range(40):
        memo.put({f"shared-{number}": {"writer": writer}, f"own-{writer}-{number}": {"writer": writer}})


def test_several_processes_write_at_once_also_from_a_forked_connection(memo: Memo) -> None:
    memo.put({"before": {"v": 1}})
    writers = [FORK.Process(target=_put_all, args=(memo, w)) for w in range(4)]
    for process in writers:
        process.start()
    _put_all(memo, 4)
    for process in writers:
        process.join()
        assert process.exitcode == 0
    assert memo.stats().answers == 1 + 40 + 5 * 40


def _put_around_a_signal(memo: Memo, ours: Connection) -> None:
    memo.put({"child before": {"v": 1}})
    ours.send("put")
    ours.recv()
    memo.put({"child after": {"v": 1}})


def test_a_child_loses_nothing_when_its_parent_closes_the_memo(memo: Memo) -> None:
    memo.put({"parent": {"v": 1}})
    theirs, ours = FORK.Pipe()
    child = FORK.Process(target=_put_around_a_signal, args=(memo, ours))
    child.start()
    theirs.recv()
    # The last one out deletes SQLite's log: the child must not be writing into it unseen.
    kept(memo, "parent")
    memo.close()
    theirs.send("go on")
    child.join()
    assert kept(memo, "parent", "child before", "child after").keys() == {"parent", "child before", "child after"}


def test_a_full_disk_is_refused_and_everything_before_is_kept(memo: Memo) -> None:
    memo.put({"early": {"v": 1}})
    pages = memo.connection.execute("PRAGMA page_count").fetchone()[0]
    memo.connection.execute(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(Refused, match=r"full.*Make room"):
        memo.put({"half": {"v": 1}, "big": {"fill": "x" * 100_000}})
    assert kept(memo, "early", "half", "big") == {"early": {"v": 1}}
    memo.connection.execute("PRAGMA max_page_count = 100000")
    memo.put({"half": {"v": 2}})
    assert kept(memo, "half") == {"half": {"v": 2}}


def test_a_damaged_file_is_named_with_what_to_do(memo: Memo) -> None:
    memo.path.parent.mkdir()
    memo.path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(Refused, match=r"damaged.*stillhouse memo fill"):
        memo.get(["k"])


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="cannot be used"):
        Memo(tmp_path / "file").get(["k"])


def test_another_process_that_never_lets_go_is_worth_a_retry(memo: Memo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.memo.store.BUSY_S", 0.05)
    other = Memo(memo.path.parent)
    other.connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(TryAgain, match="held by another process"):
        memo.put({"k": {"v": 1}})


def test_what_is_forgotten_leaves_no_byte(memo: Memo) -> None:
    memo.put(
        {f"k{i}": {"prompt_id": f"p{i % 3}", "content": f"said of {'secret' * 50} by p{i % 3}"} for i in range(600)}
    )
    memo.put({"by key": {"content": "another secret"}, "other": {"content": "stays"}})
    reading = Reading("r", target_logprob=np.zeros(1, np.float32))
    memo.put_readings({"paid": reading, "paid too": reading}, paid=True)
    memo.put_readings({"free": reading}, paid=False)
    assert memo.forget(["p0", "p1", "p2"], ["by key", "paid"]) == 603
    assert kept(memo, "other", "k1", "by key").keys() == {"other"}
    assert memo.readings(["paid", "paid too", "free"]).keys() == {"paid too"}
    assert [f.name for f in parquet.walk(memo.path.parent) if b"secret" in f.read_bytes()] == []


def test_readings_of_others_stay_where_it_is_known_whose_they_are(memo: Memo) -> None:
    """One of p0, one that p0 shares with p1, one of p1, and one of which nobody noted whose it is."""
    reading = Reading("r", target_logprob=np.zeros(1, np.float32))
    memo.note([("own", "p0"), ("shared", "p0"), ("shared", "p1"), ("other", "p1"), ("other", "p1")])
    memo.put_readings(dict.fromkeys(["own", "shared", "other", "unknown"], reading), paid=False)
    assert memo.forget(["p0"], []) == 3
    assert memo.readings(["own", "shared", "other", "unknown"]).keys() == {"other"}
    assert memo.connection.execute("SELECT * FROM read_of").fetchall() == [("other", "p1")]


def test_prune_forgets_what_is_old(memo: Memo, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr("pipeline.memo.memo.time.time", lambda: now - 10 * 86400)
    memo.put({"old": {"fill": "x" * 200_000}}, paid=False)
    monkeypatch.setattr("pipeline.memo.memo.time.time", lambda: now)
    memo.put({"new": {"v": 1}}, paid=False)
    before = memo.stats()
    assert (before.answers, before.newest) == (2, pytest.approx(now))
    assert memo.prune(5) == 1
    assert kept(memo, "old", "new") == {"new": {"v": 1}}
    assert memo.stats().bytes < before.bytes - 150_000


# What was put, whether it was paid for, and whether an ordinary prune forgets it.
KEPT = {
    "a computed answer": ("answer", False, True),
    "an answer that was paid for": ("answer", True, False),
    "an answer of before it was noted": ("answer", None, False),
    "a computed reading": ("reading", False, True),
    "a reading that was paid for": ("reading", True, False),
    "a reading of before it was noted": ("reading", None, False),
}


@pytest.mark.parametrize("what", KEPT)
@pytest.mark.parametrize("age", [0.0, 4.0, 6.0, 400.0])
@pytest.mark.parametrize("also_paid", [False, True])
def test_prune_counts_first_and_keeps_what_was_paid_for(
    what: str, age: float, also_paid: bool, memo: Memo, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, paid, computed = KEPT[what]
    now = time.time()
    monkeypatch.setattr("pipeline.memo.memo.time.time", lambda: now - age * 86400)
    if kind == "answer":
        memo.put({"k": {"cost_usd": 0.5}}, paid)
    else:
        assert memo.put_readings({"k": Reading("k", np.zeros(2, np.float32))}, paid) == 1
    monkeypatch.setattr("pipeline.memo.memo.time.time", lambda: now)
    told = [(o.what, o.paid, o.n, o.cost_usd) for o in memo.older(5)]
    cost = 0.5 if kind == "answer" else 0.0
    assert told == ([(f"{kind}s", paid, 1, cost)] if age > 5 else [])
    goes = age > 5 and (computed or also_paid)
    assert memo.prune(5, also_paid=also_paid) == int(goes)
    assert memo.stats().answers + memo.stats().readings == int(not goes)


@pytest.mark.parametrize("days", [-1, -0.001, float("nan"), float("inf"), float("-inf"), 36_501, 1e300, -1e300])
def test_days_out_of_range_are_refused_and_nothing_is_forgotten(days: float, memo: Memo) -> None:
    memo.put({"k": {"v": 1}}, paid=False)
    with pytest.raises(Refused, match="days: must be 0 to"):
        memo.prune(days, also_paid=True)
    with pytest.raises(Refused, match="days: must be 0 to"):
        memo.older(days)
    assert memo.stats().answers == 1


def test_a_memo_of_before_it_was_noted_is_opened(tmp_path: Path) -> None:
    file = tmp_path / FILE
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE memo (key TEXT PRIMARY KEY, put_at REAL NOT NULL, value TEXT NOT NULL)")
        connection.execute("INSERT INTO memo VALUES ('old', 1.0, '{\"v\": 1}')")
    connection.close()
    memo = Memo(tmp_path)
    memo.put({"new": {"v": 2}}, paid=False)
    assert kept(memo, "old", "new") == {"old": {"v": 1}, "new": {"v": 2}}
    assert [(o.paid, o.n) for o in memo.older(0)] == [(None, 1), (False, 1)]
    assert kept(Memo(tmp_path), "old") == {"old": {"v": 1}}


@pytest.mark.parametrize(
    ("backend", "paid"),
    [("local.model", False), ("vllm.engine", False), ("fake.words", False), ("network.local", False),
     ("http.openai", True), ("recorded.solutions", True)],
)  # fmt: skip
def test_what_this_machine_computes_was_not_paid_for(backend: str, paid: bool) -> None:
    assert computed_here({"backend": backend}) is not paid


def test_the_keys_of_what_was_paid_for_never_change() -> None:
    """A key that changed would have every answer and every reading of every user paid for again."""
    sampling = Sampling(0.7, 0.9, 64, ("END",))
    served = engine_of({"backend": "http.openai", "model": "m", "version": "1"})
    assert served == "a3ad592286857401a236db833f7659f0"
    assert request_key("p", "m@1", sampling, 3, 17, "e") == "500c877c28561e64fed3b5264bb84210"
    assert request_key("p", "m@1", sampling, 3, 17, "e", [1, 2]) == "351b83dc14f217456e4d9c1e8c015b04"
    read = Tokens("x", [1, 2, 3], [2])
    assert reading_key(read, "m@1", "e", Want(top_k=4)) == "d5e935e38070e561057f585c4d7732e6"


def test_equal_tokens_about_different_arrays_are_read_apart() -> None:
    pictures = [tensors.cell({"image": np.full((2, 2), value, np.uint8)}) for value in (0, 0, 1)]
    keys = [reading_key(Tokens("x", [3], [0], picture), "m", "e", Want(top_k=4)) for picture in [*pictures, None]]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("column", ["entry", "model"])
def test_recorded_responses_fill_the_memo(column: str, memo: Memo, tmp_path: Path) -> None:
    """Also those of a table of before the column was called `entry`."""
    answers = [
        Answer("r0", "a", "stop", reasoning="t", token_ids=[1, 2], logprobs=[-0.5, -0.25], cost_usd=1.5),
        Answer("r1", "b", "length"),
        Answer("r2", None, "error", error="HTTP 500"),
    ]
    prompt = ids.prompt_id([{"role": "user", "content": "q"}])
    rows = [
        {
            **asdict(answer),
            "response_id": ids.response_id(answer.request_id, answer.content),
            "prompt_id": prompt, "messages": [{"role": "user", "content": "q"}], "domain": "d", "verifier": None,
            "reference": None, "entry": "m", "model_id": "m", "sample": 0, "seed": 0, "answer": None,
        }
        for answer in answers
    ]  # fmt: skip
    parquet.write(RESPONSES, tmp_path / "responses", 1, [RESPONSES.rows(rows)])
    files = sorted((tmp_path / "responses").glob("*.parquet"))
    memo.put({"r1": {"v": "paid for before"}})
    if column != "entry":
        rows_ = pq.read_table(files[0])
        pq.write_table(rows_.rename_columns([column if c == "entry" else c for c in rows_.column_names]), files[0])
    assert memo.fill(files) == 1
    assert memo.fill(files) == 0
    found = memo.get(["r0", "r1", "r2"])
    known = {name: value for name, value in asdict(answers[0]).items() if name != "endpoint"}  # no table has that
    assert found["r0"] == {**known, "prompt_id": prompt, "sample": 0, "instance": "generate@m"}
    assert found["r1"] == {"v": "paid for before"}
    assert "r2" not in found


def test_a_second_run_with_the_same_requests_pays_nothing_and_holds_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTINEL_KEY", "sk-sentinel-0123456789abcdef")
    model = tmp_path / "data" / "models" / "teacher"
    model.mkdir(parents=True)
    (model / "model.json").write_text(
        f'{{"backend": "http.openai", "model_id": "{MODEL}@1", "model": "{MODEL}", "version": "1"}}'
    )
    with serving() as server:
        endpoint = Endpoint(url=server.url, api_key_env="SENTINEL_KEY", concurrency=4)
        how = How(RunSettings(endpoints={"teacher": endpoint}), tmp_path, "generate@teacher")
        texts = [[{"role": "user", "content": f"echo | question {i}"}] for i in range(12)]
        asked = [
            GenerateRequest(request_key(ids.prompt_id(m), f"{MODEL}@1", SAMPLING, 0, i), ids.prompt_id(m), m, 0, i)
            for i, m in enumerate(texts)
        ]
        first = ask(model, asked[:8], SAMPLING, how)
        second = ask(model, asked, SAMPLING, how)
        assert {k: second[k] for k in first} == first
        assert len(server.stats()["bodies"]) == 12
    stored = b"".join(file.read_bytes() for file in parquet.walk(how.memo))
    assert b"[SENTINEL_KEY]" in stored
    assert b"sk-sentinel" not in stored
