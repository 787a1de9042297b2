"""What holds for every backend, in one suite; where one falls short the reason stands here and the law must fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline import ids
from pipeline.chat import Chat
from pipeline.errors import Refused
from pipeline.execution import Endpoint, RunSettings
from pipeline.models import finish
from pipeline.plugins import available, find
from pipeline.protocol import Answer, Backend, GenerateRequest, Sampling, Tokens, open_model
from tests.servers import MODEL, Server, serving

EMBEDDED = Path(__file__).parents[2] / "data" / "embedded" / "teacher"
GREEDY, SAMPLED = Sampling(0.0, 1.0, 24), Sampling(1.0, 1.0, 24)
QUESTIONS = ["3+4", "12+7", "rev abc", "6*7", "hello", "90-1", "1+1+1", "zz"]


@dataclass(frozen=True)
class Case:
    """One backend: how its model folder is filled, a prompt that is too long for it, and the laws it cannot keep.

    `gaps`: name of a test -> why, and what it raises there.
    """

    fill: Callable[[Path, str], None]
    too_long: str
    gaps: dict[str, tuple[str, type[BaseException]]]


def local(folder: Path, url: str) -> None:
    for file in EMBEDDED.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    card(folder, **finish(folder, "float32"))


def served(folder: Path, url: str) -> None:
    card(folder, backend="http.openai", model=MODEL, version="1", logprobs=True, token_ids=True)


def recorded(folder: Path, url: str) -> None:
    card(folder, backend="recorded.solutions")


def card(folder: Path, **content: object) -> None:
    (folder / "model.json").write_text(json.dumps(content), "utf-8")


UNREADABLE = "a server is asked for answers only: few can read given tokens"
NO_MODEL = "holds answers and no model"
CASES = {
    "local.model": Case(local, "9" * 200, {}),
    # Its server refuses a prompt that says so, as real servers refuse one that is too long.
    "http.openai": Case(
        served,
        "400 code=context_length_exceeded | too long",
        {"test_generate_and_read_agree": (UNREADABLE, Refused)},
    ),
    "recorded.solutions": Case(
        recorded,
        "9" * 200,
        {
            "test_generate_and_read_agree": (NO_MODEL, Refused),
            "test_no_two_prompts_share_their_noise": (NO_MODEL, AssertionError),
            "test_a_prompt_that_is_too_long_is_an_answer_with_an_error": (NO_MODEL, AssertionError),
        },
    ),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def folders(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for name, case in CASES.items():
        found[name] = tmp_path_factory.mktemp("models") / "asked"
        found[name].mkdir()
        case.fill(found[name], server.url)
    return found


@pytest.fixture(params=sorted(CASES))
def name(request: pytest.FixtureRequest) -> str:
    """A backend; a law that it cannot keep is marked, and must fail as it says."""
    if gap := CASES[request.param].gaps.get(request.function.__name__):
        request.applymarker(pytest.mark.xfail(strict=True, reason=gap[0], raises=gap[1]))
    return request.param


@pytest.fixture
def backend(name: str, folders: dict[str, Path], server: Server) -> Iterator[Backend]:
    with open_model(folders[name], settings(server)) as opened:
        yield opened


def settings(server: Server, batch_rows: int = 16) -> RunSettings:
    endpoints = {"asked": Endpoint(url=server.url, retries=0, timeout_s=20)}
    return RunSettings(batch_rows=batch_rows, device="cpu", endpoints=endpoints)


def asked(texts: Sequence[str], k: int = 1) -> list[GenerateRequest]:
    """Each text asked k times under a prompt id of its own, with the seeds that `generate` gives."""
    return [
        GenerateRequest(
            f"{prompt}/{sample}",
            f"prompt {prompt}",
            [{"role": "user", "content": text}],
            sample,
            ids.seed_of(17, "generate", f"prompt {prompt}", sample),
            solution=f"It is {text}.",
        )
        for prompt, text in enumerate(texts)
        for sample in range(k)
    ]


def answered(backend: Backend, requests: Sequence[GenerateRequest], sampling: Sampling) -> dict[str, Answer]:
    return {answer.request_id: answer for answer in backend.generate(requests, sampling)}


def test_every_backend_is_here() -> None:
    assert set(CASES) == set(available("backend"))


def test_every_request_is_answered_once(backend: Backend) -> None:
    requests = asked(QUESTIONS, k=5)
    arrived = [answer.request_id for answer in backend.generate(requests, SAMPLED)]
    assert sorted(arrived) == sorted(request.request_id for request in requests)
    assert list(backend.generate([], SAMPLED)) == []


def test_greedy_answers_are_always_the_same(backend: Backend) -> None:
    first, second = (answered(backend, asked(QUESTIONS), GREEDY) for _ in range(2))
    assert first == second
    assert all(answer.content is not None and answer.error is None for answer in first.values())


def test_an_answer_does_not_depend_on_what_else_is_asked(name: str, folders: dict[str, Path], server: Server) -> None:
    """Bit for bit, its log-probabilities too: alone, in another order, in batches of another size."""
    requests = asked(QUESTIONS, k=4)
    with open_model(folders[name], settings(server)) as backend:
        together = answered(backend, requests, SAMPLED)
        alone = [answered(backend, [request], SAMPLED)[request.request_id] for request in requests[::5]]
        backwards = answered(backend, requests[::-1], SAMPLED)
    with open_model(folders[name], settings(server, batch_rows=5)) as backend:
        small = answered(backend, requests, SAMPLED)
    assert together == backwards == small
    assert alone == [together[answer.request_id] for answer in alone]


def test_no_two_prompts_share_their_noise(backend: Backend) -> None:
    """One question under many prompt ids: were the noise of sample 0 shared, all answers to it would be one text."""
    answers = answered(backend, asked(["hello"] * 16), SAMPLED)
    assert len({answer.content for answer in answers.values()}) > 4


def test_generate_and_read_agree(backend: Backend, folders: dict[str, Path]) -> None:
    """The log-probabilities of sampled tokens are those of reading them."""
    chat, requests = Chat(EMBEDDED), asked(QUESTIONS, k=2)
    prompts = {request.request_id: chat.prompt(request.messages) for request in requests}
    answers = answered(backend, requests, SAMPLED)
    sequences = []
    for key, answer in answers.items():
        tokens = answer.token_ids or [0]
        whole = [*prompts[key], *tokens]
        sequences.append(Tokens(key, whole, range(len(prompts[key]), len(whole))))
    readings = {reading.id: reading for reading in backend.read(sequences)}
    assert readings.keys() == answers.keys()
    for key, answer in answers.items():
        np.testing.assert_allclose(readings[key].target_logprob, answer.logprobs, atol=1e-4)


def test_a_prompt_that_is_too_long_is_an_answer_with_an_error(name: str, backend: Backend) -> None:
    answers = answered(backend, asked([CASES[name].too_long, "3+4"]), SAMPLED)
    failed, good = answers["0/0"], answers["1/0"]
    assert (failed.content, failed.finish_reason) == (None, "error")
    assert failed.error
    assert good.error is None
    assert good.content is not None


@pytest.mark.parametrize(
    ("needed", "want", "found"),
    [
        ("read", {}, "target_logprob"),
        ("topk_logprobs", {"top_k": 4}, "topk_ids"),
        ("hidden_states", {"embedding": True}, "embedding"),
    ],
)
def test_what_is_not_given_is_refused(name: str, backend: Backend, needed: str, want: dict, found: str) -> None:
    sequence = Tokens("one", [1, 5, 6, 7], [2, 3])
    if needed in find("backend", name).traits["gives"]:
        [reading] = backend.read([sequence], **want)
        assert getattr(reading, found) is not None
    else:
        with pytest.raises(Refused, match="read"):
            list(backend.read([sequence], **want))


def test_samples_of_one_prompt_have_seeds_of_their_own(name: str, backend: Backend) -> None:
    """Asking for more samples leaves those that are there as they are."""
    few, many = answered(backend, asked(QUESTIONS, k=2), SAMPLED), answered(backend, asked(QUESTIONS, k=4), SAMPLED)
    assert few == {key: many[key] for key in few}
