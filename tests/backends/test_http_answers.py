"""What a served model is asked, what its server must give for it, and what its answers say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.errors import Refused
from pipeline.gateway.batch import BatchGateway
from pipeline.gateway.completions import Completions, Served
from pipeline.kinds.backend import GenerateRequest, Sampling, Structured, Tokens, Want
from pipeline.text.thinking import split_thinking
from tests.backends.test_http import answers, asked, bodies, opened, samples, served_folder
from tests.servers import MODEL, SHORT, SHORT_CONTEXT, Server, logprob, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test in a workspace of its own: what is spent is counted there."""
    monkeypatch.chdir(tmp_path)


def test_a_request_says_what_was_asked_and_one_sample_at_a_time(server: Server) -> None:
    with opened(server.url) as backend:
        wide = GenerateRequest("r0", "p0", [{"role": "user", "content": "said?"}], sample=3, seed=2**62 + 5)
        assert next(iter(backend.generate([wide], Sampling(0.5, 0.9, 7, ("END",))))).content == "said? -> 5"
    said = [b for b in server.stats()["bodies"] if b["messages"][0]["content"] == "said?"]
    assert said == [{
        "model": MODEL, "messages": [{"role": "user", "content": "said?"}], "seed": 5,
        "temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "stop": ["END"],
    }]  # fmt: skip


def test_a_model_may_answer_under_its_version_and_no_other_name() -> None:
    spoken = Completions("teacher", "http://h/v1", Served(model="gpt", version="2024-08-06"))
    for name in ("gpt", "gpt-2024-08-06", "gpt@2024-08-06", "2024-08-06", None):
        spoken.check_name(name)
    with pytest.raises(Refused, match=r"write `model: gpt-2025-01-01`.*acquire\.teacher"):
        spoken.check_name("gpt-2025-01-01")


def test_logprobs_and_token_ids_come_where_they_are_asked_for(server: Server) -> None:
    both = answers(server.url, "both", card={"logprobs": True, "token_ids": True})[0]
    assert (both.logprobs, both.token_ids) == ([logprob(5), logprob(6)], [5, 6])
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


def test_plain_completions_are_rendered_here_and_sent_as_tokens(server: Server, tmp_path: Path) -> None:
    card = {"api": "completions", "logprobs": True, "token_ids": True}
    folder = served_folder(tmp_path / "plain")
    first, second = answers(server.url, "hello", "think | you", card=card, folder=folder)
    assert (first.content, first.finish_reason) == ("hello -> 0", "stop")
    assert (first.logprobs, first.token_ids) == ([logprob(5), logprob(6)], [5, 6])
    assert (second.reasoning, second.content) == ("I wonder.", "you -> 1")
    [body] = [b for b in server.stats()["bodies"] if b.get("prompt") == [ord(c) for c in "hello"]]
    assert body["logprobs"] == 1
    with pytest.raises(Refused, match="needs `tokenizer`"), opened(server.url, card=card):
        pass


@pytest.mark.parametrize(("fault", "parameter"), [("logprobs", "parameter logprobs"), ("ids", "return_token_ids")])
def test_plain_completions_that_lack_a_parameter_are_refused(
    server: Server, tmp_path: Path, fault: str, parameter: str
) -> None:
    card = {"api": "completions", "logprobs": True, "token_ids": True}
    with pytest.raises(Refused, match=parameter):
        answers(server.url, f"{fault} | lacks", card=card, folder=served_folder(tmp_path / "plain"))


def test_samples_of_a_prompt_are_asked_for_together(server: Server) -> None:
    card = {"n": 4, "price_in": 1.0, "price_out": 10.0}
    got = asked(server.url, [*samples("shuffled | grouped", 10), *samples("grouped alone", 1)], card=card)
    assert [a.content for a in got[:10]] == [
        f"grouped -> {i // 4 * 4}" + (f".{i % 4}" if i % 4 else "") for i in range(10)
    ]
    assert got[10].content == "grouped alone -> 0"
    assert sorted(body.get("n", 1) for body in bodies(server, "grouped")) == [1, 2, 4, 4]
    assert {a.prompt_tokens for a in got} == {10}
    # Two tokens an answer, and the prompt's ten once a request.
    assert sum(a.cost_usd for a in got[:10]) == pytest.approx((3 * 10 * 1 + 10 * 2 * 10) / 1e6)


def test_samples_that_are_missing_among_known_ones_are_asked_for_in_their_own_group(server: Server) -> None:
    asked(server.url, [*samples("the rest", 2, first=2), *samples("the rest", 4, first=4)], card={"n": 4})
    assert [(body["seed"], body["n"]) for body in bodies(server, "the rest")] == [(2, 2), (4, 4)]


@pytest.mark.parametrize(
    ("fault", "says"),
    [("few", r"gave 2 choices of the 3 asked for \(parameter n\)"), ("twins", r"parameter n.*\[0, 1, 0\]")],
)
def test_choices_that_are_missing_or_twice_are_refused(server: Server, fault: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        asked(server.url, samples(f"{fault} | choices", 3), card={"n": 3})


FORMS = {
    "json_schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    "regex": r"[0-9]+",
    "choice": ("yes", "no"),
}


@pytest.mark.parametrize(
    ("form", "good", "sent"),
    [
        ("json_schema", '{"a":1}', ("response_format", "json_schema", "schema")),
        ("regex", "42", ("structured_outputs", "regex")),
        ("choice", "yes", ("structured_outputs", "choice")),
    ],
)
def test_a_server_is_held_to_a_form_and_refused_if_it_does_not_keep_to_it(
    server: Server, form: str, good: str, sent: tuple[str, ...]
) -> None:
    sampling = Sampling(1.0, 1.0, 32, structured=Structured(**{form: FORMS[form]}))
    card = {"structured": True}
    assert answers(server.url, f"says={good} | keeps {form}", sampling=sampling, card=card)[0].content == good
    [body] = bodies(server, f"keeps {form}")
    for key in sent:
        body = body[key]
    assert body == json.loads(json.dumps(FORMS[form]))
    cut = answers(server.url, "says=wrong finish=length | cut", sampling=sampling, card=card)[0]
    assert (cut.content, cut.finish_reason) == ("wrong", "length")
    with pytest.raises(Refused, match=f"ignores the parameter {sent[0]}.*structured: true"):
        answers(server.url, f"says=wrong | {form} ignored", sampling=sampling, card=card)
    # Not held to it, an answer is the caller's to look at.
    assert answers(server.url, "says=wrong | loose", sampling=sampling)[0].content == "wrong"


def test_given_texts_are_read_where_the_server_can(server: Server, tmp_path: Path) -> None:
    folder, token_ids = served_folder(tmp_path / "reader"), [0, 3, 1, 9, 2]
    with opened(server.url, card={"read": True}, folder=folder) as backend:
        wanted = [Tokens(f"t{i}", token_ids, [2, 3]) for i in range(20)]
        read = {reading.id: reading for reading in backend.read(wanted, Want(top_k=3))}
        [plain] = backend.read(wanted[:1])
        assert list(backend.read([])) == []
        with pytest.raises(Refused, match="give its states"):
            backend.read(wanted, Want(embedding=True))
    assert read.keys() == {t.id for t in wanted}
    reading = read["t7"]
    np.testing.assert_allclose(reading.target_logprob, [logprob(1), logprob(9)], rtol=1e-6)
    # The fourth token is none of the three likeliest: its position lists four.
    assert reading.topk_ids.tolist() == [[0, 1, 2], [0, 1, 2]]
    np.testing.assert_allclose(reading.topk_logprobs, [[logprob(t) for t in range(3)]] * 2, rtol=1e-6)
    np.testing.assert_allclose(reading.tail_mass, [1 / 8, 1 / 8], rtol=1e-6)
    assert plain.topk_ids is None
    np.testing.assert_array_equal(plain.target_logprob, reading.target_logprob)


def test_a_server_that_does_not_read_is_refused(server: Server, tmp_path: Path) -> None:
    with opened(server.url) as backend, pytest.raises(Refused, match=r"local model.*`read: true`"):
        backend.read([])
    folder = served_folder(tmp_path / "reader")
    for fault, says in [
        ("prompt_logprobs", "ignores the parameter prompt_logprobs"),
        ("400", "does not read one: HTTP 400"),
    ]:
        sequence = Tokens("one", [ord(c) for c in f"{fault} | x"], [1])
        with opened(server.url, card={"read": True}, folder=folder) as backend, pytest.raises(Refused, match=says):
            list(backend.read([sequence]))
    short = {"read": True, "model": SHORT}
    with opened(server.url, card=short, folder=folder) as backend, pytest.raises(Refused, match="context of 48"):
        list(backend.read([Tokens("long", [1] * SHORT_CONTEXT, [1])]))


@pytest.mark.parametrize(
    ("card", "context"),
    [({"context": 40}, 40), ({"model": SHORT}, SHORT_CONTEXT), ({"model": SHORT, "context": 40}, 40)],
)
def test_a_prompt_that_leaves_no_room_is_not_sent(server: Server, tmp_path: Path, card: dict, context: int) -> None:
    fits, too_long = "f" * (context - 32), "l" * (context - 31)
    before = server.stats()["attempts"].get(too_long, 0)
    good, failed = answers(server.url, fits, too_long, card=card, folder=served_folder(tmp_path / "counted"))
    assert good.error is None
    assert failed.error == (
        f"the prompt has {len(too_long)} tokens and max_tokens is 32; together they pass the context of {context}"
    )
    assert failed.prompt_tokens == len(too_long)
    assert server.stats()["attempts"].get(too_long, 0) == before
    # Without a tokenizer nothing can be counted, and the server decides.
    assert answers(server.url, too_long, card=card)[0].error is None


def test_what_a_server_says_of_its_build_is_kept(server: Server) -> None:
    found = answers(server.url, "print=fp1 | a", "print=fp2 | b", "none")
    assert [answer.fingerprint for answer in found] == ["fp1", "fp2", None]


def test_an_endpoint_with_batch_is_asked_by_batch_files(server: Server, tmp_path: Path) -> None:
    with opened(server.url, batch={"poll_s": 0.01}) as backend:
        assert isinstance(backend, BatchGateway)
    plain = {"card": {"api": "completions"}, "folder": served_folder(tmp_path / "plain")}
    with pytest.raises(Refused, match=r"run\.endpoints\.plain\.batch"), opened(server.url, batch={}, **plain):
        pass


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize(
    "given",
    [
        [-0.5, None],
        [None],
        [-0.5, NAN],
        [NAN, NAN],
        [-INF],
        [-0.5, -INF, -0.25],
        ["-0.5"],
        [-9999.0],
        [-0.5],
        [0.0],
        [],
    ],
    ids=str,
)
def test_an_answer_whose_log_probability_is_no_number_is_kept(api: str, given: list) -> None:
    """It is paid for: the number is what is missing, and `asking` stores it as null."""
    chat = Completions.__new__(Completions)
    chat.served = SimpleNamespace(logprobs=True, token_ids=False, api=api)
    listed = {"token_logprobs": given} if api == "completions" else {"content": [{"logprob": v} for v in given]}
    found, _ = chat._tokens({"logprobs": listed})
    assert found is not None and len(found) == len(given)
    wanted = [NAN if value is None else float(value) for value in given]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("given", [[0.5], [-0.5, 1.0], [INF], [-0.5, "x"]], ids=str)
def test_what_can_be_no_log_probability_is_refused(given: list) -> None:
    chat = Completions.__new__(Completions)
    chat.served = SimpleNamespace(logprobs=True, token_ids=False, api="completions")
    with pytest.raises(ValueError, match=r"above 0|could not convert"):
        chat._tokens({"logprobs": {"token_logprobs": given}})
