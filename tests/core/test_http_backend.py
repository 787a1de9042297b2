"""The HTTP backend against a server that fails in every way that servers do."""

from __future__ import annotations

import itertools
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from pipeline.backends import http
from pipeline.backends.completions import Completions, Served, split_thinking
from pipeline.backends.http import Gateway, endpoint_of, openai
from pipeline.errors import CapReached, Refused, TryAgain
from pipeline.execution import Endpoint, RunSettings
from pipeline.protocol import Answer, GenerateRequest, Sampling
from tests.servers import MODEL, Server, serving

SAMPLING = Sampling(temperature=1.0, top_p=0.9, max_tokens=32)
KEY = "sk-sentinel-0123456789abcdef"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BACKOFF_S", 0.001)
    monkeypatch.setattr(http, "LONGEST_BACKOFF_S", 0.1)
    monkeypatch.setenv("SENTINEL_KEY", KEY)


@contextmanager
def opened(url: str, card: dict | None = None, **endpoint) -> Iterator[Gateway]:
    settings = RunSettings(endpoints={"teacher": Endpoint(url=url, **{"timeout_s": 20, "retries": 3, **endpoint})})
    with openai(folder=Path("teacher"), card={"model": MODEL, "version": "1", **(card or {})}, settings=settings) as it:
        yield it


def requests(*texts: str) -> list[GenerateRequest]:
    return [
        GenerateRequest(f"r{i}", f"p{i}", [{"role": "user", "content": text}], sample=0, seed=i)
        for i, text in enumerate(texts)
    ]


def answers(url: str, *texts: str, card: dict | None = None, **endpoint) -> list[Answer]:
    with opened(url, card, **endpoint) as backend:
        found = {a.request_id: a for a in backend.generate(requests(*texts), SAMPLING)}
    return [found[f"r{i}"] for i in range(len(texts))]


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


def test_a_request_says_what_was_asked_and_one_sample_at_a_time(server: Server) -> None:
    with opened(server.url) as backend:
        wide = GenerateRequest("r0", "p0", [{"role": "user", "content": "said?"}], sample=3, seed=2**62 + 5)
        assert next(iter(backend.generate([wide], Sampling(0.5, 0.9, 7, ("END",))))).content == "said? -> 5"
    said = [b for b in server.stats()["bodies"] if b["messages"][0]["content"] == "said?"]
    assert said == [{
        "model": MODEL, "messages": [{"role": "user", "content": "said?"}], "seed": 5,
        "temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "stop": ["END"],
    }]  # fmt: skip


@pytest.mark.parametrize("fault", ["429", "500", "503", "truncated", "cut", "choices"])
def test_a_fault_that_passes_leaves_no_trace(server: Server, fault: str) -> None:
    text = f"{fault}*2 | passes"
    assert [a.content for a in answers(server.url, text)] == ["passes -> 0"]
    assert server.stats()["attempts"][text] == 3


def test_a_hung_socket_is_given_up_and_asked_again(server: Server) -> None:
    assert answers(server.url, "hang*1 | wakes", timeout_s=0.3)[0].content == "wakes -> 0"


@pytest.mark.parametrize(
    ("fault", "says"),
    [("500", "HTTP 500"), ("truncated", "no chat completion"), ("cut", "broke"), ("choices", "parameter n")],
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


def test_a_model_may_answer_under_its_version_and_no_other_name() -> None:
    spoken = Completions("teacher", "http://h/v1", Served(model="gpt", version="2024-08-06"))
    for name in ("gpt", "gpt-2024-08-06", "gpt@2024-08-06", "2024-08-06", None):
        spoken.check_name(name)
    with pytest.raises(Refused, match=r"write `model: gpt-2025-01-01`.*acquire\.teacher"):
        spoken.check_name("gpt-2025-01-01")


def test_logprobs_and_token_ids_come_where_they_are_asked_for(server: Server) -> None:
    asked = answers(server.url, "both", card={"logprobs": True, "token_ids": True})[0]
    assert (asked.logprobs, asked.token_ids) == ([-0.5, -0.25], [5, 6])
    assert answers(server.url, "neither")[0].logprobs is None


@pytest.mark.parametrize(("fault", "parameter"), [("logprobs", "parameter logprobs"), ("ids", "return_token_ids")])
def test_a_server_that_ignores_a_parameter_is_refused_by_its_name(server: Server, fault: str, parameter: str) -> None:
    with pytest.raises(Refused, match=parameter):
        answers(server.url, f"{fault} | lacks", card={"logprobs": True, "token_ids": True})


def test_tokens_are_counted_and_paid(server: Server) -> None:
    paid = answers(server.url, "paid", card={"price_in": 2.0, "price_out": 10.0})[0]
    assert (paid.prompt_tokens, paid.completion_tokens, paid.cost_usd) == (10, 2, (10 * 2 + 2 * 10) / 1e6)
    assert answers(server.url, "free")[0].cost_usd is None


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content", "thinking", "think"])
def test_thinking_is_kept_apart_from_the_answer(server: Server, field: str) -> None:
    answer = answers(server.url, f"{field} | thought")[0]
    assert (answer.reasoning, answer.content) == ("I wonder.", "thought -> 0")


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("plain", None, "plain"),
        ("<think>a</think>b", "a", "b"),
        (" <think>\na\n</think>\n\nb", "a", "b"),
        ("opened by the template</think>b", "opened by the template", "b"),
        ("<think>never closed", "never closed", ""),
        ("The tag <think> opens and </think> closes.", None, "The tag <think> opens and </think> closes."),
        ("<think></think>b", "", "b"),
    ],
)
def test_inline_thinking(text: str, thinking: str | None, answer: str) -> None:
    assert split_thinking(text) == (thinking, answer)


def test_odd_answers_are_answers(server: Server) -> None:
    texts = ["empty | e", "empty finish=content_filter | f", "megabyte finish=length | m", "utf8 | u", "surrogate | s"]
    empty, filtered, long, bytes_, surrogate = answers(server.url, *texts)
    assert (empty.content, empty.finish_reason, empty.error) == ("", "stop", None)
    assert (filtered.content, filtered.finish_reason) == ("", "content_filter")
    assert (len(long.content.encode()), long.finish_reason) == (1 << 20, "length")
    assert bytes_.content == "\ufffd\ufffd"
    assert surrogate.content == "\ufffd"


def test_an_unknown_end_of_an_answer_is_an_error(server: Server) -> None:
    assert "tool_calls" in answers(server.url, "finish=tool_calls | t")[0].error


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
    assert not [t for t in threading.enumerate() if t.name == "gateway-teacher"]


def test_retry_after_may_be_a_date_or_nonsense() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 20 < http._retry_after({"Retry-After": soon}) <= 30
    assert http._retry_after({"Retry-After": "1.5"}) == 1.5
    assert http._retry_after({"Retry-After": "-3"}) == 0
    assert http._retry_after({"Retry-After": "soon"}) is None
    assert http._retry_after({}) is None


def test_a_redirect_is_not_followed(server: Server) -> None:
    with pytest.raises(Refused, match=r"HTTP 307.*sends us to"):
        answers(server.url, "307 | elsewhere")


def test_a_slow_caller_holds_the_requests_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "WAITING_ANSWERS", 4)
    with serving() as own, opened(own.url, concurrency=2) as backend:
        arriving = backend.generate(requests(*[f"{i}" for i in range(50)]), SAMPLING)
        first = next(arriving)
        # While the caller looks at one answer, a worker may at most fill the queue and hold one more.
        own.stats(), own.stats(), own.stats()
        assert len(own.stats()["bodies"]) <= 1 + 4 + 2
        assert len([first, *arriving]) == 50


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


def test_it_refuses_to_read(server: Server) -> None:
    with opened(server.url) as backend, pytest.raises(Refused, match="local model"):
        backend.read([])
