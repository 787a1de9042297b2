"""One model at several addresses: each is asked as fast as it answers, and one that is lost costs nothing."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pipeline.asking.ask import _served_by
from pipeline.backends.http import Gateway, endpoint_of, openai
from pipeline.core.run import How
from pipeline.core.settings import Endpoint, RunSettings
from pipeline.errors import CapReached, Refused, TryAgain
from pipeline.gateway import connection
from pipeline.kinds.backend import Answer
from pipeline.memo.ledger import Ledger
from tests.backends.test_http import SAMPLING, requests
from tests.servers import MODEL, Server, serving

CLOSED = "http://127.0.0.1:1/v1"


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connection, "BACKOFF_S", 0.01)
    monkeypatch.setattr(connection, "LONGEST_BACKOFF_S", 0.1)


@contextlib.contextmanager
def opened(urls: Sequence[str], card: dict | None = None, **endpoint) -> Iterator[Gateway]:
    options = {"timeout_s": 20, "retries": 3, "concurrency": 4, **endpoint}
    settings = RunSettings(endpoints={"teacher": Endpoint(urls=tuple(urls), **options)})
    how = How(settings, Path(), "generate@teacher")
    with openai(folder=Path("teacher"), card={"model": MODEL, "version": "1", **(card or {})}, how=how) as it:
        yield it


@contextlib.contextmanager
def two(*always: str) -> Iterator[list[Server]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(serving(always=faults)) for faults in always]


def asked(urls: Sequence[str], texts: Sequence[str], **options) -> list[Answer]:
    """The answers; each request must have one, and the address that gave it."""
    with opened(urls, **options) as backend:
        arrived = list(backend.generate(requests(*texts), SAMPLING))
    assert sorted(answer.request_id for answer in arrived) == sorted(f"r{i}" for i in range(len(texts)))
    assert {answer.endpoint for answer in arrived} <= {*urls}
    return arrived


def test_each_address_is_asked_as_fast_as_it_answers() -> None:
    with two("delay=0.02", "delay=0.2") as servers:
        arrived = asked([s.url for s in servers], [f"question {i}" for i in range(60)])
    fast, slow = (Counter(a.endpoint for a in arrived)[s.url] for s in servers)
    assert fast > slow > 0


def test_an_address_that_is_lost_costs_no_answer(capfd: pytest.CaptureFixture[str]) -> None:
    with two("delay=0.02", "delay=0.02") as (lost, stays), opened([lost.url, stays.url]) as backend:
        arrived: list[Answer] = []
        for answer in backend.generate(requests(*(f"question {i}" for i in range(60))), SAMPLING):
            arrived.append(answer)
            if len(arrived) == 20:
                lost.kill()
    assert sorted(a.request_id for a in arrived) == sorted(f"r{i}" for i in range(60))
    assert [a.error for a in arrived] == [None] * 60
    assert Counter(a.endpoint for a in arrived)[stays.url] >= 40
    assert f"{lost.url} did not answer" in capfd.readouterr().err


def test_one_that_is_down_from_the_start_and_comes_later_is_asked_later() -> None:
    with two("delay=0.05") as [stays], opened([CLOSED, stays.url]) as backend:
        assert backend.models() == (MODEL, "denied", "short")
        answers = list(backend.generate(requests(*(f"question {i}" for i in range(12))), SAMPLING))
        assert {a.endpoint for a in answers} == {stays.url}
        with serving() as late:
            backend.lanes[0].connection.url = late.url
            answers = list(backend.generate(requests(*(f"question {i}" for i in range(40))), SAMPLING))
    assert Counter(a.endpoint for a in answers)[late.url] > 0


def test_where_all_are_lost_the_run_is_worth_another_try() -> None:
    with pytest.raises(TryAgain, match="does not serve: no connection"):
        asked([CLOSED, CLOSED.replace("1/", "2/")], ["question"])
    with two("", "") as servers, opened([s.url for s in servers], retries=1) as backend:
        answers = backend.generate(requests(*(f"delay=0.05 | {i}" for i in range(60))), SAMPLING)
        next(answers)
        for server in servers:
            server.kill()
        with pytest.raises(
            TryAgain, match=r"does not serve: no connection.*2 times in a row.*what was received is kept"
        ):
            list(answers)


@pytest.mark.parametrize("fault", ["429", "503", "500", "truncated", "cut", "429 retry=5"])
def test_what_one_refuses_another_is_asked_at_once(fault: str) -> None:
    with two(fault, "") as servers:
        arrived = asked([s.url for s in servers], [f"question {i}" for i in range(20)])
    assert {a.endpoint for a in arrived} == {servers[1].url} and not any(a.error for a in arrived)


def test_one_that_hangs_is_asked_no_more_than_once_for_each_request() -> None:
    with two("hang", "") as servers:
        arrived = asked([s.url for s in servers], [f"question {i}" for i in range(20)], timeout_s=1)
        assert max(servers[0].stats()["attempts"].values()) == 1
    assert {a.endpoint for a in arrived} == {servers[1].url}


def test_a_cap_counts_over_all_addresses() -> None:
    with two("", "") as servers, pytest.raises(CapReached):
        asked([s.url for s in servers], [f"question {i}" for i in range(200)], max_tokens=1000)
    assert Ledger(Path("data/.memo"), "teacher", None, None).spent().tokens <= 1000


def test_addresses_that_are_not_one_model_are_named() -> None:
    with two("print=one", "print=other") as servers:
        arrived = asked([s.url for s in servers], [f"delay=0.02 | question {i}" for i in range(20)])
    shares, told = _served_by(arrived)
    assert shares.startswith("answered by http://127.0.0.1:") and all(s.url in shares for s in servers)
    assert told.startswith("the endpoints do not serve one model (system_fingerprint): ")
    assert f"by one at {servers[0].url}" in told and f"by other at {servers[1].url}" in told


BAD = {
    "neither": ({}, "takes one of url and urls"),
    "both": ({"url": CLOSED, "urls": [CLOSED]}, "takes one of url and urls"),
    "twice": ({"urls": [CLOSED, CLOSED]}, "names an address twice"),
    "batch": ({"urls": [CLOSED, "http://b/v1"], "batch": {}}, "sends batch files to one address"),
}


@pytest.mark.parametrize("bad", BAD)
def test_settings_that_mean_nothing_are_refused(bad: str) -> None:
    given, why = BAD[bad]
    with pytest.raises(ValueError, match=why):
        Endpoint(**given)


def test_one_bad_address_of_several_is_refused() -> None:
    for url, why in (("ftp://a/v1", "must be like"), ("http://u:p@a/v1", "holds a secret")):
        settings = RunSettings(endpoints={"teacher": Endpoint(urls=(CLOSED, url))})
        with pytest.raises(Refused, match=rf"run.endpoints.teacher.urls: {why}"):
            endpoint_of("teacher", settings)
