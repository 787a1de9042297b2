"""The HTTP backend against a server that fails in every way that servers do."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from pipeline.backends.http import Gateway, endpoint_of, openai
from pipeline.core.run import How
from pipeline.core.settings import Endpoint, RunSettings
from pipeline.errors import CapReached, Refused, TryAgain
from pipeline.gateway import connection, rounds
from pipeline.gateway.pace import START, Pace
from pipeline.kinds.backend import Answer, GenerateRequest, Sampling
from pipeline.memo.ledger import Ledger
from tests.servers import MODEL, Server, serving

SAMPLING = Sampling(temperature=1.0, top_p=0.9, max_tokens=32)
KEY = "sk-sentinel-0123456789abcdef"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connection, "BACKOFF_S", 0.001)
    monkeypatch.setattr(connection, "LONGEST_BACKOFF_S", 0.1)
    monkeypatch.setenv("SENTINEL_KEY", KEY)


@contextmanager
def opened(url: str, card: dict | None = None, folder: Path = Path("teacher"), **endpoint) -> Iterator[Gateway]:
    settings = RunSettings(endpoints={folder.name: Endpoint(url=url, **{"timeout_s": 20, "retries": 3, **endpoint})})
    how = How(settings, Path(), f"generate@{folder.name}")
    with openai(folder=folder, card={"model": MODEL, "version": "1", **(card or {})}, how=how) as it:
        yield it


def requests(*texts: str) -> list[GenerateRequest]:
    return [
        GenerateRequest(f"r{i}", f"p{i}", [{"role": "user", "content": text}], sample=0, seed=i)
        for i, text in enumerate(texts)
    ]


def samples(text: str, count: int, first: int = 0) -> list[GenerateRequest]:
    """Samples of one prompt; each has its number as its seed."""
    messages = [{"role": "user", "content": text}]
    return [GenerateRequest(f"{text}/{i}", text, messages, sample=i, seed=i) for i in range(first, first + count)]


def answers(url: str, *texts: str, sampling: Sampling = SAMPLING, **options) -> list[Answer]:
    return asked(url, requests(*texts), sampling, **options)


def asked(url: str, wanted: Sequence[GenerateRequest], sampling: Sampling = SAMPLING, **options) -> list[Answer]:
    """The answers in the order of the requests; each request must be answered once."""
    with opened(url, **options) as backend:
        arrived = list(backend.generate(wanted, sampling))
    found = {answer.request_id: answer for answer in arrived}
    assert len(arrived) == len(found) == len(wanted)
    return [found[request.request_id] for request in wanted]


def served_folder(folder: Path) -> Path:
    """A model folder with a tokenizer whose tokens are characters, and a template that is the last message alone."""
    split = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer = Tokenizer(models.WordLevel({chr(i): i for i in range(128)}, "?"))
    tokenizer.pre_tokenizer = split
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"eos_token": "?"}))
    (folder / "tokenizer" / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
    return folder


def bodies(server: Server, word: str) -> list[dict]:
    """What the server was asked in prompts with this word."""
    return [body for body in server.stats()["bodies"] if word in json.dumps(body.get("messages", ""))]


def test_every_request_is_answered_once_whatever_the_order_of_arrival(server: Server) -> None:
    texts = [f"delay={0.05 if i % 3 == 0 else 0} | question {i}" for i in range(40)]
    with opened(server.url, concurrency=8) as backend:
        arrived = list(backend.generate(requests(*texts), SAMPLING))
    assert sorted(a.request_id for a in arrived) == sorted(f"r{i}" for i in range(40))
    assert [a.request_id for a in arrived] != [f"r{i}" for i in range(40)]
    assert all(a.content == f"question {a.request_id[1:]} -> {a.request_id[1:]}" for a in arrived)


def test_no_more_requests_are_in_flight_than_concurrency_allows() -> None:
    with serving() as own:
        answers(own.url, *[f"delay=0.05 | {i}" for i in range(24)], concurrency=6)
        assert own.stats()["most_at_once"] == 6


@pytest.mark.parametrize("fault", ["429", "500", "503", "truncated", "cut", "choices"])
def test_a_fault_that_passes_leaves_no_trace(server: Server, fault: str) -> None:
    text = f"{fault}*2 | passes"
    assert [a.content for a in answers(server.url, text)] == ["passes -> 0"]
    assert server.stats()["attempts"][text] == 3


def test_a_hung_socket_is_given_up_and_asked_again(server: Server) -> None:
    assert answers(server.url, "hang*1 | wakes", timeout_s=0.3)[0].content == "wakes -> 0"


@pytest.mark.parametrize(
    ("fault", "says"),
    [("500", "HTTP 500"), ("truncated", "not a completion"), ("cut", "broke"), ("choices", "parameter n")],
)
def test_a_request_that_fails_for_good_is_an_answer_with_an_error(server: Server, fault: str, says: str) -> None:
    failed, good = answers(server.url, f"{fault} | fails for good", "good", retries=1)
    assert (failed.content, failed.finish_reason) == (None, "error")
    assert says in failed.error
    assert "2 times" in failed.error
    assert good.content == "good -> 1"


def test_a_request_that_the_server_rejects_is_not_asked_again(server: Server) -> None:
    text = "400 code=context_length_exceeded | too long"
    assert "HTTP 400" in answers(server.url, text)[0].error
    assert server.stats()["attempts"][text] == 1


def test_retry_after_is_obeyed_by_all_requests(server: Server) -> None:
    refused = "429*1 retry=0.4 | paused"
    others = [f"delay=0.02 | behind the pause {i}" for i in range(8)]
    answers(server.url, refused, *others, concurrency=1)
    times = server.stats()["times"]
    assert times[refused][1] - times[refused][0] >= 0.4
    assert min(times[o][0] for o in others) - times[refused][0] >= 0.4


def test_a_storm_of_429_is_outlived_while_others_are_answered(server: Server) -> None:
    texts = ["429*6 retry=0.1 | patient", *[f"delay=0.05 | goes on {i}" for i in range(20)]]
    assert all(a.error is None for a in answers(server.url, *texts, concurrency=2, retries=1))


def test_an_endpoint_that_only_refuses_ends_the_run_to_be_tried_again(server: Server) -> None:
    with pytest.raises(TryAgain, match=r"HTTP 429.*3 times in a row"):
        answers(server.url, "429 | only refused", retries=2)


def test_a_pause_too_long_to_wait_for_ends_the_run(server: Server) -> None:
    with pytest.raises(TryAgain, match="asks to wait 86400 s"):
        answers(server.url, "503 retry=86400 | tomorrow")


def test_what_arrived_before_the_run_ended_is_handed_over(server: Server) -> None:
    got = []
    with opened(server.url, concurrency=2) as backend, pytest.raises(Refused, match="HTTP 404"):
        for answer in backend.generate(requests("delay=0.2 | in flight", "404 | stops", "never asked"), SAMPLING):
            got.append(answer.content)
    assert got == ["in flight -> 0"]
    assert "never asked" not in server.stats()["attempts"]


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("401", Refused, "denies"),
        ("404", Refused, "knows no model"),
        ("402", CapReached, "used up"),
        ("429 code=insufficient_quota", CapReached, "used up"),
        ("400 code=unsupported_parameter", Refused, "does not take a parameter"),
        ("model", Refused, "answered as 'other'"),
    ],
)
def test_what_no_request_can_help_ends_the_run(server: Server, fault: str, error: type[Refused], says: str) -> None:
    with pytest.raises(error, match=says):
        answers(server.url, f"{fault} | {says}")


def test_an_endpoint_that_is_down_is_named_with_what_to_do() -> None:
    with serving() as gone:
        url = gone.url
    with pytest.raises(TryAgain, match=r"127\.0\.0\.1.*Start it") as caught:
        answers(url, "anyone?")
    assert caught.value.exit_code == 75


def test_a_server_that_dies_and_comes_back_is_waited_for() -> None:
    with serving() as first, opened(first.url, concurrency=1, retries=1000) as backend:
        arriving = backend.generate(requests(*[f"delay=0.1 | {i}" for i in range(6)]), SAMPLING)
        got = [next(arriving)]
        first.kill()
        with serving(first.port):
            got += arriving
    assert sorted(a.request_id for a in got) == [f"r{i}" for i in range(6)]
    assert all(a.error is None for a in got)


def test_a_server_that_dies_for_good_ends_the_run_and_blames_no_request() -> None:
    with serving() as mortal, opened(mortal.url, concurrency=1, retries=2) as backend:
        arriving = backend.generate(requests(*[f"delay=0.1 | {i}" for i in range(6)]), SAMPLING)
        got = [next(arriving)]
        mortal.kill()
        with pytest.raises(TryAgain, match="no connection"):
            got += arriving
    assert all(a.error is None for a in got)


def test_a_caller_may_leave_early_and_come_back(server: Server) -> None:
    with opened(server.url, concurrency=4) as backend:
        few = list(itertools.islice(backend.generate(requests(*[f"delay=0.05 | {i}" for i in range(40)]), SAMPLING), 3))
        again = list(backend.generate(requests("again"), SAMPLING))
    assert (len(few), again[0].content) == (3, "again -> 0")


def test_a_caller_that_fails_leaves_nothing_running(server: Server) -> None:
    with pytest.raises(ZeroDivisionError), opened(server.url, concurrency=4) as backend:
        for _ in backend.generate(requests("first", *["hang | never"] * 9), SAMPLING):
            raise ZeroDivisionError
    assert backend.connection.loop.is_closed()
    while server.stats()["now"]:
        pass


def test_an_interrupt_while_waiting_ends_cleanly() -> None:
    with serving() as own:

        def interrupt() -> None:
            while own.stats()["now"] < 4:
                pass
            os.kill(os.getpid(), signal.SIGINT)

        sender = threading.Thread(target=interrupt)
        with pytest.raises(KeyboardInterrupt), opened(own.url, concurrency=4) as backend:
            sender.start()
            list(backend.generate(requests(*["hang | never"] * 9), SAMPLING))
        sender.join()
        assert backend.connection.loop.is_closed()
        while own.stats()["now"]:
            pass


def test_a_connection_that_the_server_closed_meanwhile_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "AWAY_S", 0.0)
    with serving() as own, opened(own.url, concurrency=1) as backend:
        arriving = backend.generate(requests("drop | first", "second"), SAMPLING)
        next(arriving)
        while not own.stats()["dropped"]:
            pass
        assert next(arriving).content == "second -> 1"
        assert own.stats()["attempts"]["second"] == 1


def test_time_in_which_the_caller_is_away_is_not_the_servers() -> None:
    with serving() as own, opened(own.url, concurrency=2, timeout_s=0.5, retries=0) as backend:
        arriving = backend.generate(requests("first", "delay=0.2 | second"), SAMPLING)
        next(arriving)
        begun = time.monotonic()
        while time.monotonic() - begun < 0.7:
            pass
        assert [a.content for a in arriving] == ["second -> 1"]


def test_an_endpoint_that_takes_few_at_once_is_found_out_with_few_refusals() -> None:
    with serving() as own, opened(own.url, concurrency=64, retries=1) as backend:
        texts = [f"room=6 delay=0.01 | {i}" for i in range(400)]
        got = list(backend.generate(requests(*texts), SAMPLING))
        assert len(got) == 400
        assert all(answer.error is None for answer in got)
        stats = own.stats()
        assert stats["statuses"]["429"] < 60
        assert stats["most_at_once"] < 24
        assert 3 <= backend.lanes[0].pace.level < 12


def test_the_pace_grows_while_answers_come_and_does_not_take_long() -> None:
    pace = Pace(ceiling=100)
    for _ in range(START):
        pace.answered(2.0)
    assert pace.level == 2 * START
    for _ in range(50):
        pace.answered(20.0)
    slow = pace.level
    assert slow < 4 * START
    for _ in range(50):
        pace.answered(2.0)
    assert pace.level > slow


def test_the_pace_halves_once_per_round_trip_and_then_adds_one() -> None:
    pace = Pace(ceiling=16)
    for _ in range(20):
        pace.answered(0.1)
    assert pace.level == 16
    for _ in range(10):
        pace.refused(sent_at=1.0, now=2.0)
    assert (pace.level, pace.refusals) == (8, 10)
    pace.refused(sent_at=2.5, now=3.0)
    assert pace.level == 4
    for _ in range(4):
        pace.answered(0.1)
    assert 4.8 < pace.level <= 5
    for at in range(4, 14):
        pace.refused(sent_at=at, now=at + 0.5)
    assert pace.level == 1
    assert Pace(ceiling=3).level == 3


def test_retry_after_may_be_a_date_or_nonsense() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 20 < connection.retry_after({"Retry-After": soon}) <= 30
    assert connection.retry_after({"Retry-After": "1.5"}) == 1.5
    assert connection.retry_after({"Retry-After": "-3"}) == 0
    assert connection.retry_after({"Retry-After": "soon"}) is None
    assert connection.retry_after({}) is None


def test_a_redirect_is_not_followed(server: Server) -> None:
    with pytest.raises(Refused, match=r"HTTP 307.*redirects to"):
        answers(server.url, "307 | elsewhere")


def test_no_more_than_concurrency_requests_are_in_flight_or_not_yet_taken() -> None:
    with serving() as own, opened(own.url, concurrency=3) as backend:
        taken = 0
        for _ in backend.generate(requests(*[f"{i}" for i in range(50)]), SAMPLING):
            # The one at hand is not yet kept.
            assert len(own.stats()["bodies"]) <= taken + 3
            taken += 1
    assert taken == 50


def test_the_key_is_sent_and_shows_nowhere(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    endpoint = {"api_key_env": "SENTINEL_KEY", "retries": 0}
    echoed, failed, rejected = answers(server.url, "echo | k", "500 | k", "400 | k", **endpoint)
    assert echoed.content == "Bearer [SENTINEL_KEY]"
    texts = [repr(echoed), repr(failed), repr(rejected)]
    for fault in ("401", "404", "429", "402"):
        with pytest.raises(Refused) as caught:
            answers(server.url, f"{fault} | key", **endpoint)
        texts.append("".join(traceback.format_exception(caught.value)))
    with opened(server.url, **endpoint) as backend:
        texts += [repr(backend), str(backend), str(capfd.readouterr())]
    assert all("[SENTINEL_KEY]" in text for text in texts[1:3])
    assert not any(KEY in text for text in texts)


def test_a_key_that_is_missing_or_unusable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENTINEL_KEY")
    with pytest.raises(Refused, match="SENTINEL_KEY is not set"), opened("http://h/v1", api_key_env="SENTINEL_KEY"):
        pass
    monkeypatch.setenv("SENTINEL_KEY", "two\nlines-of-a-secret")
    with pytest.raises(Refused, match="no usable key") as caught, opened("http://h/v1", api_key_env="SENTINEL_KEY"):
        pass
    assert "lines-of-a-secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://user:word@host/v1", "https://host/v1?key=abc"])
def test_an_address_with_a_secret_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(Refused, match="api_key_env") as caught:
        endpoint_of("teacher", RunSettings(endpoints={"teacher": Endpoint(url=url)}))
    assert "word" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_a_served_model_without_an_address_is_told_what_to_write() -> None:
    with pytest.raises(Refused, match="endpoints:\n      teacher:\n        url:"):
        endpoint_of("teacher", RunSettings())


def test_a_proxy_of_the_environment_is_used_and_no_password_file(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text(f"machine model.invalid login me password {KEY}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert answers("http://model.invalid/v1", "through a proxy")[0].content == "through a proxy -> 0"
    assert answers("http://model.invalid/v1", "echo | auth")[0].content == ""


def test_the_authority_of_a_certificate_is_taken_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = tmp_path / "server.pem"
    made = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem",
    ]  # fmt: skip
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    certificate.write_text((tmp_path / "cert.pem").read_text() + (tmp_path / "key.pem").read_text())
    hashed = tmp_path / "hashed"
    hashed.mkdir()
    (hashed / "cert.pem").write_text((tmp_path / "cert.pem").read_text())
    subprocess.run(["openssl", "rehash", str(hashed)], check=True)
    variables = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
    with serving(certificate=certificate) as own:
        for variable, trusted in [
            *zip(variables, (tmp_path / "cert.pem", hashed, tmp_path / "cert.pem"), strict=True),
            (None, None),
        ]:
            for other in variables:
                monkeypatch.delenv(other, raising=False)
            if variable is not None:
                monkeypatch.setenv(variable, str(trusted))
                assert answers(own.url, f"trusted by {variable}")[0].error is None
        with pytest.raises(Refused, match=r"cannot be used.*SSL_CERT_FILE"):
            answers(own.url, "not trusted")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere.pem"))
        with pytest.raises(Refused, match=r"SSL_CERT_FILE names .*nowhere\.pem"):
            answers(own.url, "not there")


def spent() -> tuple[int, float]:
    found = Ledger(Path("data/.memo"), "teacher", None, None).spent()
    return found.tokens, found.cost_usd


def bound(text: str) -> int:
    """The most tokens that a prompt of this text and its answer may have, where no tokenizer is known."""
    return len(json.dumps([{"role": "user", "content": text}], separators=(",", ":"))) + SAMPLING.max_tokens


def test_a_cap_on_tokens_ends_the_run_with_all_kept(server: Server) -> None:
    texts = [f"delay=0.01 | capped {i:02}" for i in range(40)]
    cap, got = 12 * 10 + bound(texts[0]), []
    with opened(server.url, max_tokens=cap, concurrency=8) as backend, pytest.raises(CapReached) as caught:
        for answer in backend.generate(requests(*texts), SAMPLING):
            got.append(answer)
    # Each is bounded by its bytes and 32 tokens, and used 12: as many as leave room for one more bound.
    assert len(got) == 11
    assert caught.value.exit_code == 76
    assert f"run.endpoints.teacher.max_tokens is {cap}" in str(caught.value)
    assert f"{len(got)} answers" in str(caught.value)
    assert spent() == (12 * len(got), 0.0)
    assert len(bodies(server, "capped")) == len(got)
    # The cap holds for what comes later, too, and a higher one goes on.
    with pytest.raises(CapReached):
        answers(server.url, "capped once more", max_tokens=cap)
    assert len(answers(server.url, "capped no more", max_tokens=10 * cap)) == 1


def test_a_cap_on_cost_counts_what_answers_cost(server: Server, tmp_path: Path) -> None:
    card, got = {"price_in": 1.0, "price_out": 10.0}, []
    with (
        opened(server.url, card, served_folder(tmp_path / "teacher"), max_cost=1e-3, concurrency=4) as backend,
        pytest.raises(CapReached, match="max_cost"),
    ):
        for answer in backend.generate(requests(*["paid"] * 40), SAMPLING):
            got.append(answer)
    cost, most = (10 + 20) / 1e6, (4 + 320) / 1e6
    assert 1e-3 - most - cost < cost * len(got) <= 1e-3 - most + cost
    assert spent() == (12 * len(got), pytest.approx(cost * len(got)))
    with pytest.raises(Refused, match=r"max_cost needs prices.*acquire\.teacher"), opened(server.url, max_cost=1.0):
        pass


def test_instances_at_the_same_time_share_a_cap(server: Server) -> None:
    with opened(server.url, max_tokens=150) as one, opened(server.url, max_tokens=150) as other:
        # Each needs between 60 and 80 at most, and used 12.
        arriving = one.generate(requests("first", "hang | in flight"), SAMPLING)
        assert next(arriving).content == "first -> 0"
        with pytest.raises(CapReached):
            list(other.generate(requests("at the same time"), SAMPLING))
        arriving.close()
    # What a caller leaves in flight may be billed all the same.
    assert spent() == (12 + bound("hang | in flight"), 0.0)


def test_what_is_not_known_counts_in_full_and_what_failed_does_not(server: Server) -> None:
    answers(server.url, "usage | unknown", max_tokens=10**6)
    assert spent() == (bound("usage | unknown"), 0.0)
    answers(server.url, "500 | fails", "400 | rejected", retries=1, max_tokens=10**6)
    assert spent() == (bound("usage | unknown"), 0.0)
    with opened(server.url, concurrency=2, max_tokens=10**6) as backend:
        next(backend.generate(requests("left", *["hang | never"] * 9), SAMPLING))
    assert spent() == (bound("usage | unknown") + 12 + bound("hang | never"), 0.0)
