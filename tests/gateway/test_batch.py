"""Provider batch files against a server that speaks their API, kills and lost answers included."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.run import How
from pipeline.core.settings import Batch, Endpoint, RunSettings
from pipeline.errors import CapReached, Refused, TryAgain
from pipeline.gateway import connection
from pipeline.gateway.batch import BatchGateway
from pipeline.gateway.completions import Served
from pipeline.kinds.backend import Answer, GenerateRequest, Sampling, Structured
from pipeline.memo.ledger import Ledger
from pipeline.memo.memo import Memo
from tests.batch_server import MODEL, Server, serving

SAMPLING = Sampling(temperature=1.0, top_p=0.9, max_tokens=32)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def provider() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def server(provider: Server) -> Server:
    provider.reset()
    return provider


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BACKOFF_S", 0.001)


def opened(
    url: str, root: Path, card: dict[str, Any] | None = None, files: Any = None, **endpoint: Any
) -> BatchGateway:
    served = Served.model_validate({"model": MODEL, "version": "1", **(card or {})})
    how = How(RunSettings(), root, "generate@teacher")
    batches = Batch(**{"poll_s": 0.01, **(files or {})})
    return BatchGateway("teacher", served, Endpoint(url=url, batch=batches, retries=3, **endpoint), how)


def requests(*texts: str) -> list[GenerateRequest]:
    return [
        GenerateRequest(f"r{i}", f"p{i}", [{"role": "user", "content": text}], sample=0, seed=i)
        for i, text in enumerate(texts)
    ]


def answers(url: str, root: Path, *texts: str, **options: Any) -> list[Answer]:
    with opened(url, root, **options) as backend:
        arrived = list(backend.generate(requests(*texts), SAMPLING))
    found = {answer.request_id: answer for answer in arrived}
    assert len(arrived) == len(found) == len(texts)
    return [found[f"r{i}"] for i in range(len(texts))]


def kept(root: Path) -> list[Path]:
    return list((root / "data" / ".memo" / "batches").glob("*.json"))


QUESTIONS = tuple(f"question {i}" for i in range(9))
PLAIN = [f"question {i} -> {i}" for i in range(9)]


def test_every_request_is_answered_in_one_batch_at_the_price_of_batches(server: Server, tmp_path: Path) -> None:
    priced = {"price_in": 1.0, "price_out": 5.0}
    got = answers(server.url, tmp_path, *QUESTIONS, card=priced, files={"price": 0.5})
    assert [answer.content for answer in got] == PLAIN
    assert {answer.cost_usd for answer in got} == {(10 * 1.0 + 2 * 5.0) / 1e6 / 2}
    stats = server.stats()
    assert (stats["exchanges"]["POST /files"], stats["exchanges"]["POST /batches"]) == (1, 1)
    assert stats["bodies"][3] == {
        "model": MODEL, "messages": [{"role": "user", "content": "question 3"}], "seed": 3,
        "temperature": 1.0, "top_p": 0.9, "max_tokens": 32,
    }  # fmt: skip
    assert kept(tmp_path) == []
    with opened(server.url, tmp_path) as backend:
        assert list(backend.generate([], SAMPLING)) == []


def test_no_batch_is_larger_than_said(server: Server, tmp_path: Path) -> None:
    assert [a.content for a in answers(server.url, tmp_path, *QUESTIONS, files={"max_requests": 4})] == PLAIN
    assert [sent["requests"] for sent in server.stats()["batches"]] == [4, 4, 1]


@pytest.mark.parametrize(
    "fault", ["missing", "broken", "unknown", "choices", "codeless", "500", "429", "expired", "failed"]
)
def test_a_request_without_an_answer_is_in_another_batch(server: Server, tmp_path: Path, fault: str) -> None:
    got = answers(server.url, tmp_path, f"{fault}*1 | odd", "even")
    assert [answer.content for answer in got] == ["odd -> 0", "even -> 1"]
    # What a failed batch holds is asked again whole; of any other only what has no answer.
    assert [sent["requests"] for sent in server.stats()["batches"]] == [2, 2 if fault == "failed" else 1]
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("missing", "no line"), ("broken", "no line"), ("unknown", "no line"), ("choices", "parameter n"),
        ("500", "no (500)"),
    ],
)  # fmt: skip
def test_a_request_that_never_has_an_answer_is_an_error(server: Server, tmp_path: Path, fault: str, says: str) -> None:
    odd, even = answers(server.url, tmp_path, f"{fault} | odd", "even")
    assert (odd.content, odd.finish_reason, even.content) == (None, "error", "even -> 1")
    assert says in str(odd.error)
    assert "in 3 batches" in str(odd.error)
    assert len(server.stats()["batches"]) == 3


def test_a_request_that_is_refused_is_an_error_at_once(server: Server, tmp_path: Path) -> None:
    odd, even = answers(server.url, tmp_path, "400 | odd", "even")
    assert (odd.error, even.content) == ("HTTP 400: no (400)", "even -> 1")
    assert len(server.stats()["batches"]) == 1


def test_of_two_lines_for_one_request_the_first_counts(server: Server, tmp_path: Path) -> None:
    assert answers(server.url, tmp_path, "duplicate | odd", "even")[0].content == "odd -> 0"


def test_a_torn_file_is_fetched_again_and_nothing_asked_again(server: Server, tmp_path: Path) -> None:
    got = answers(server.url, tmp_path, "torn*1 | question 0", *QUESTIONS[1:])
    assert [answer.content for answer in got] == PLAIN
    assert server.stats()["exchanges"]["GET /files/"] == 2
    assert len(server.stats()["batches"]) == 1


@pytest.mark.parametrize(("fault", "kind", "says"), [("expired", TryAgain, ""), ("failed", Refused, "too much is")])
def test_a_batch_that_never_completes_ends_the_run(
    server: Server, tmp_path: Path, fault: str, kind: type[Refused], says: str
) -> None:
    got = []
    with opened(server.url, tmp_path) as backend, pytest.raises(Refused, match=f"has {fault}.*{says}") as caught:
        for answer in backend.generate(requests(f"{fault} | odd", "even"), SAMPLING):
            got.append(answer.content)
    assert type(caught.value) is kind
    assert got == ([] if fault == "failed" else ["even -> 1"])
    assert len(server.stats()["batches"]) == 3
    assert kept(tmp_path) == []


def test_a_batch_that_was_cancelled_is_not_made_again(server: Server, tmp_path: Path) -> None:
    got = []
    with opened(server.url, tmp_path) as backend, pytest.raises(Refused, match=r"cancelled at the provider.*run this"):
        for answer in backend.generate(requests("cancelled*1 | odd", "even"), SAMPLING):
            got.append(answer.content)
    assert (got, len(server.stats()["batches"])) == (["even -> 1"], 1)


def test_a_state_that_nobody_knows_is_not_waited_for(server: Server, tmp_path: Path) -> None:
    with opened(server.url, tmp_path) as backend, pytest.raises(Refused, match=r"batch-0 is 'exploded'.*remove"):
        list(backend.generate(requests("exploded | odd"), SAMPLING))


def test_a_batch_of_other_sampling_is_not_taken_for_this(server: Server, tmp_path: Path) -> None:
    with opened(server.url, tmp_path) as backend:
        next(iter(backend.generate(requests("a", "b"), SAMPLING)))
        assert len(list(backend.generate(requests("a", "b"), replace(SAMPLING, temperature=0.0)))) == 2
    assert [body["temperature"] for body in server.stats()["bodies"]] == [1.0, 1.0, 0.0, 0.0]


def test_several_choices_are_not_for_batches(server: Server, tmp_path: Path) -> None:
    with opened(server.url, tmp_path, {"n": 4}) as backend, pytest.raises(Refused, match=r"take `n` out"):
        list(backend.generate(requests("a"), SAMPLING))


def test_a_form_that_is_ignored_is_named(server: Server, tmp_path: Path) -> None:
    sampling = replace(SAMPLING, structured=Structured(choice=("yes", "no")))
    with opened(server.url, tmp_path, {"structured": True}) as backend, pytest.raises(Refused, match="parameter"):
        list(backend.generate(requests("a"), sampling))
    assert server.stats()["bodies"][0]["structured_outputs"] == {"choice": ["yes", "no"]}


def test_an_empty_account_is_no_cap_of_ours(server: Server, tmp_path: Path) -> None:
    with opened(server.url, tmp_path) as backend, pytest.raises(CapReached, match="is used up") as caught:
        list(backend.generate(requests("unpaid"), SAMPLING))
    assert "max_requests" not in str(caught.value)


def test_text_that_is_no_utf8_is_kept(server: Server, tmp_path: Path) -> None:
    assert answers(server.url, tmp_path, "surrogate | odd")[0].content == "odd \ufffd 0"


def test_nothing_is_sent_that_cannot_be_kept(server: Server, tmp_path: Path) -> None:
    with opened(server.url, tmp_path) as backend:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
        try:
            with pytest.raises(Refused, match="cannot be written"):
                list(backend.generate(requests(*QUESTIONS), SAMPLING))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert server.stats()["files"] == 0


def test_answers_of_another_model_end_the_run_and_stay_paid_for(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        with opened(server.url, tmp_path) as backend, pytest.raises(Refused, match=r"'other'.*remove .*\.json"):
            list(backend.generate(requests("model | odd"), SAMPLING))
    assert len(server.stats()["batches"]) == 1


def test_a_parameter_that_is_ignored_is_named(server: Server, tmp_path: Path) -> None:
    got = answers(server.url, tmp_path, "a", card={"logprobs": True})
    assert got[0].logprobs == [-0.5, -0.25]
    with (
        opened(server.url, tmp_path, {"logprobs": True}) as backend,
        pytest.raises(Refused, match="parameter logprobs"),
    ):
        list(backend.generate(requests("logprobs | b"), SAMPLING))


def test_a_lost_answer_makes_nothing_twice(server: Server, tmp_path: Path) -> None:
    """The upload was done and answered with status 500: the file is found by its name."""
    assert answers(server.url, tmp_path, "lost*1 | a")[0].content == "a -> 0"
    stats = server.stats()
    assert (stats["exchanges"]["POST /files"], stats["exchanges"]["POST /batches"]) == (1, 1)


def test_a_server_without_batches_is_told_what_to_do(server: Server, tmp_path: Path) -> None:
    with opened(server.url + "/no", tmp_path) as backend, pytest.raises(Refused, match="takes no batch files: take"):
        list(backend.generate(requests("a"), SAMPLING))


def test_an_endpoint_that_is_down_can_be_tried_again(tmp_path: Path) -> None:
    with serving() as gone:
        url = gone.url
    with opened(url, tmp_path) as backend, pytest.raises(TryAgain, match="no connection"):
        list(backend.generate(requests("a"), SAMPLING))


def test_it_refuses_to_read(server: Server, tmp_path: Path) -> None:
    with opened(server.url, tmp_path) as backend, pytest.raises(Refused, match="read"):
        backend.read([])


def test_a_cap_holds_before_anything_is_sent(server: Server, tmp_path: Path) -> None:
    with opened(server.url, tmp_path, max_tokens=50) as backend, pytest.raises(CapReached, match="max_requests"):
        list(backend.generate(requests(*QUESTIONS), SAMPLING))
    assert server.stats()["files"] == 0
    assert kept(tmp_path) == []


def test_what_fits_under_a_cap_is_asked_and_what_it_used_makes_room(server: Server, tmp_path: Path) -> None:
    """A batch of three is bounded by some 220 tokens and uses 36, so under 300 they go one after the other."""
    got = answers(server.url, tmp_path, *QUESTIONS, files={"max_requests": 3}, max_tokens=300)
    assert [answer.content for answer in got] == PLAIN
    assert Ledger(tmp_path / "data" / ".memo", "teacher", 300, None).spent().tokens == 9 * 12


def test_an_answer_without_usage_counts_as_much_as_it_may_have_used(server: Server, tmp_path: Path) -> None:
    answers(server.url, tmp_path, "usage | a", "b", max_tokens=10_000)
    assert 32 < Ledger(tmp_path / "data" / ".memo", "teacher", 10_000, None).spent().tokens - 12 < 100


def ask_and_keep(url: str, root: str, after: int = -1) -> None:
    """What a user's process does: ask for what the memo lacks, and keep each answer; killed `after` so many."""
    memo = Memo(Path(root) / "data" / ".memo")
    known = memo.get(f"r{i}" for i in range(len(QUESTIONS)))
    with opened(url, Path(root)) as backend:
        asked = [r for r in requests(*QUESTIONS) if r.request_id not in known]
        for number, answer in enumerate(backend.generate(asked, SAMPLING)):
            if number == after:
                os.kill(os.getpid(), signal.SIGKILL)
            memo.put({answer.request_id: asdict(answer)})
    memo.close()


def client(server: Server, root: Path, after: int = -1) -> subprocess.Popen[str]:
    """A process that does so."""
    code = f"from tests.gateway.test_batch import *; ask_and_keep({server.url!r}, {str(root)!r}, {after})"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    """What a process said, after its end."""
    return process.communicate(timeout=60)[1]


def killed(server: Server, root: Path, place: str) -> None:
    """A client was killed when it had asked one place."""
    server.hold(place)
    process = client(server, root)
    server.held()
    process.kill()
    ended(process)
    server.release()


def remembered(root: Path) -> list[str]:
    found = Memo(root / "data" / ".memo").get(f"r{i}" for i in range(len(QUESTIONS)))
    return [found[key]["content"] for key in sorted(found)]


@pytest.mark.parametrize(
    "place",
    [
        "POST /files before", "POST /files after", "POST /batches before", "POST /batches after",
        "GET /batches/ before", "GET /files/ before",
    ],
)  # fmt: skip
def test_a_client_killed_at_any_moment_goes_on_with_what_it_sent(server: Server, tmp_path: Path, place: str) -> None:
    killed(server, tmp_path, place)
    ask_and_keep(server.url, str(tmp_path))
    assert remembered(tmp_path) == PLAIN
    stats = server.stats()
    assert (len(stats["batches"]), len(stats["bodies"])) == (1, len(QUESTIONS))
    # The input and the output: no file was uploaded twice.
    assert stats["files"] == 2
    assert kept(tmp_path) == []


def test_a_client_killed_amid_the_answers_fetches_the_rest(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended(client(server, tmp_path, after=4))
    assert len(remembered(tmp_path)) == 4
    ask_and_keep(server.url, str(tmp_path))
    assert remembered(tmp_path) == PLAIN
    assert "going on with batch batch-0" in capfd.readouterr().err
    assert (len(server.stats()["batches"]), kept(tmp_path)) == (1, [])


def test_an_interrupted_client_leaves_the_batch_and_says_how_to_go_on(server: Server, tmp_path: Path) -> None:
    server.hold("GET /batches/ before")
    process = client(server, tmp_path)
    server.held()
    process.send_signal(signal.SIGINT)
    assert "the same command fetches" in ended(process)
    server.release()
    ask_and_keep(server.url, str(tmp_path))
    assert (remembered(tmp_path), len(server.stats()["batches"])) == (PLAIN, 1)


def test_a_run_that_asks_for_more_goes_on_with_what_is_there(server: Server, tmp_path: Path) -> None:
    """The first was killed while its batch ran; the second wants some of it and others too."""
    killed(server, tmp_path, "GET /batches/ before")
    more = (*QUESTIONS, "question 9")
    with opened(server.url, tmp_path) as backend:
        got = {answer.request_id: answer.content for answer in backend.generate(requests(*more)[3:], SAMPLING)}
    assert sorted(map(str, got.values())) == [*PLAIN[3:], "question 9 -> 9"]
    assert [sent["requests"] for sent in server.stats()["batches"]] == [9, 1]


def test_two_processes_that_ask_for_the_same_share_a_batch(server: Server, tmp_path: Path) -> None:
    server.hold("GET /batches/ before")
    process = client(server, tmp_path)
    server.held()
    server.release()
    ask_and_keep(server.url, str(tmp_path))
    assert process.poll() is None
    process.kill()
    ended(process)
    assert (remembered(tmp_path), len(server.stats()["batches"])) == (PLAIN, 1)


def test_what_a_killed_client_reserved_is_settled_by_the_next(server: Server, tmp_path: Path) -> None:
    with opened(server.url, tmp_path, max_tokens=10_000) as backend:
        next(iter(backend.generate(requests(*QUESTIONS), SAMPLING)))
    ledger = Ledger(tmp_path / "data" / ".memo", "teacher", 10_000, None)
    assert ledger.spent().tokens > 9 * 32
    answers(server.url, tmp_path, *QUESTIONS, max_tokens=10_000)
    assert ledger.spent().tokens == 9 * 12


def test_an_address_that_changed_amid_a_batch_is_refused(server: Server, tmp_path: Path) -> None:
    killed(server, tmp_path, "GET /batches/ before")
    with opened("http://127.0.0.1:9/v1", tmp_path) as backend, pytest.raises(Refused, match=r"are in batch batch-0 at"):
        list(backend.generate(requests(*QUESTIONS), SAMPLING))


def test_a_batch_that_the_provider_forgot_is_not_asked_anew_unasked(server: Server, tmp_path: Path) -> None:
    with opened(server.url, tmp_path) as backend:
        next(iter(backend.generate(requests(*QUESTIONS), SAMPLING)))
    [file] = kept(tmp_path)
    server.reset()
    with opened(server.url, tmp_path) as backend, pytest.raises(Refused, match=r"knows no batch batch-0.*remove"):
        list(backend.generate(requests(*QUESTIONS), SAMPLING))
    file.unlink()
    assert [answer.content for answer in answers(server.url, tmp_path, *QUESTIONS)] == PLAIN


def test_a_key_shows_in_no_file(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTINEL_KEY", "sk-sentinel-0123456789abcdef")
    with opened(server.url, tmp_path, api_key_env="SENTINEL_KEY") as backend:
        next(iter(backend.generate(requests(*QUESTIONS), SAMPLING)))
    [file] = kept(tmp_path)
    assert "sentinel-0" not in file.read_text()
