"""Asking: k more is k more, forms are held, readings are kept, spending ends at a cap."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.asking import ask as asking
from pipeline.asking import read as asking_read
from pipeline.asking.ask import ask, known, requests_for
from pipeline.asking.read import read_all
from pipeline.core import identity
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.errors import CapReached
from pipeline.kinds.backend import PLAIN, Answer, GenerateRequest, Reading, Sampling, Structured, Tokens, Want
from pipeline.memo.ledger import Ledger
from pipeline.memo.memo import Memo
from pipeline.tables import ids

ROOT = Path(__file__).parents[2]
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=8)
CARD = {"backend": "recorded.solutions", "model_id": "m"}


class Told:
    """A backend that answers as it was told to, and counts what it is asked: the edge at which a model would be."""

    def __init__(self, say: object = "yes") -> None:
        self.say, self.builds = say, None
        self.requests: list[GenerateRequest] = []
        self.sequences: list[Tokens] = []

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        for request in requests:
            self.requests.append(request)
            content = self.say(request) if callable(self.say) else self.say
            build = None if self.builds is None else self.builds[len(self.requests) > 4]
            yield Answer(request.request_id, content, "stop", completion_tokens=1, fingerprint=build)

    def read(self, sequences: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        for tokens in sequences:
            self.sequences.append(tokens)
            n = len(tokens.positions)
            yield Reading(
                tokens.id,
                np.full(n, -0.5, np.float32),
                topk_ids=np.zeros((n, want.top_k), np.int32),
                topk_logprobs=np.full((n, want.top_k), -0.5, np.float32),
                tail_mass=np.zeros(n, np.float32),
            )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return folder_of(tmp_path, CARD)


def folder_of(root: Path, card: dict) -> Path:
    """A model folder with this card, and with the tokenizer of the shipped teacher."""
    shutil.copytree(ROOT / "data" / "embedded" / "teacher", root / "model" / "tokenizer", dirs_exist_ok=True)
    (root / "model" / "model.json").write_text(json.dumps(card), "utf-8")
    return root / "model"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    backend = Told()

    @contextmanager
    def opened(folder: Path, how: How) -> Iterator[Told]:
        yield backend

    monkeypatch.setattr(asking, "open_model", opened)
    monkeypatch.setattr(asking_read, "open_model", opened)
    return backend


@pytest.fixture
def how(tmp_path: Path) -> How:
    return How(RunSettings(), tmp_path, "generate@teacher")


def prompts(n: int) -> pa.Table:
    said = [[{"role": "user", "content": f"question {i}"}] for i in range(n)]
    rows = [
        {"prompt_id": ids.prompt_id(m), "messages": m, "solution": None, "inputs": None, "truth": None} for m in said
    ]
    return pa.Table.from_pylist(rows)


NAN, INF = float("nan"), float("inf")
# What a model gives, and what is kept of it.
LOGPROBS = {
    "numbers": ([-0.5, 0.0], [-0.5, 0.0]), "none asked for": (None, None), "no tokens": ([], []),
    "NaN": ([-0.5, NAN], [-0.5, None]), "minus infinity": ([-INF, -0.5], [None, -0.5]), "infinity": ([INF], [None]),
    "nothing but NaN": ([NAN, NAN], [None, None]), "null": ([None, -1.0], [None, -1.0]),
    "all of them": ([NAN, -INF, INF, None, -2.0], [None, None, None, None, -2.0]),
    "an array": (np.array([-0.5, NAN], np.float32), [-0.5, None]),
    "an array of numbers": (np.array([-0.5, -0.25], np.float32), [-0.5, -0.25]),
    "an array of doubles": (np.array([-INF, -0.25]), [None, -0.25]),
}  # fmt: skip


@pytest.mark.parametrize("what", LOGPROBS)
def test_a_log_probability_that_is_no_number_is_null_and_its_answer_is_kept(
    what: str, model: Path, told: Told, how: How, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given, wanted = LOGPROBS[what]

    def generate(requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        told.requests.extend(requests)
        return (Answer(r.request_id, "yes", "stop", logprobs=given, completion_tokens=1) for r in requests)

    monkeypatch.setattr(told, "generate", generate)
    requests = requests_for(prompts(3), model, SAMPLING, 1, seed=1)
    for _ in range(2):
        # Of the model first, then of the memo: nothing is asked twice, and both say the same.
        found = ask(model, requests, SAMPLING, how)
        assert [None if a.logprobs is None else list(a.logprobs) for a in found.values()] == [wanted] * 3
        told_of = "3 of 3 answers have log-probabilities that are no numbers" in capsys.readouterr().err
        assert told_of is (None in (wanted or []))
    assert len(told.requests) == 3
    assert all(a.content == "yes" and a.error is None for a in found.values())


def test_eight_more_samples_are_eight_more_requests(model: Path, told: Told, how: How) -> None:
    few, many = (requests_for(prompts(5), model, SAMPLING, k, seed=1) for k in (8, 16))
    first = ask(model, few, SAMPLING, how)
    assert len(told.requests) == 5 * 8
    second = ask(model, many, SAMPLING, how)
    assert len(told.requests) == 5 * 16
    assert {key: second[key] for key in first} == first


def test_one_changed_prompt_is_one_request_more(model: Path, told: Told, how: How) -> None:
    ask(model, requests_for(prompts(100), model, SAMPLING, 1, seed=1), SAMPLING, how)
    ask(model, requests_for(prompts(101), model, SAMPLING, 1, seed=1), SAMPLING, how)
    assert len(told.requests) == 101


def test_what_shapes_an_answer_is_part_of_its_key(tmp_path: Path) -> None:
    plain = {"backend": "http.openai", "model_id": "m", "logprobs": False, "price_in": 1.0}
    [before], [priced], [fuller] = (
        requests_for(prompts(1), folder_of(tmp_path, card), SAMPLING, 1, seed=1)
        for card in (plain, {**plain, "price_in": 2.0}, {**plain, "logprobs": True})
    )
    assert before.request_id == priced.request_id != fuller.request_id


def test_another_solution_is_another_answer_where_it_is_what_answers(tmp_path: Path) -> None:
    """And nowhere else: a model does not see it."""
    for backend, sees in (("recorded.solutions", True), ("http.openai", False)):
        folder, pool = folder_of(tmp_path / backend, {"backend": backend, "model_id": "m"}), prompts(1)
        keys = set()
        for solution in ("a", "b", None):
            at = pool.schema.get_field_index("solution")
            told = pool.set_column(at, "solution", pa.array([solution], pa.string()))
            keys.add(requests_for(told, folder, SAMPLING, 1, seed=1)[0].request_id)
        assert len(keys) == (3 if sees else 1)


RENDERS = {"backend": "http.openai", "model_id": "m", "api": "completions"}


def edited(monkeypatch: pytest.MonkeyPatch, module: Path, old: str, new: str) -> None:
    """As if a module of the package said something else: in its text, which identity reads, and when it is run."""
    real = Path.read_text

    def read_text(self: Path, *given: str, **named: str) -> str:
        text = real(self, *given, **named)
        if self == module:
            assert text.count(old) == 1
            return text.replace(old, new)
        return text

    monkeypatch.setattr(Path, "read_text", read_text)
    identity.forget()


LAST_TURN = "messages=list(messages)", "messages=list(messages)[-1:]"


@pytest.fixture
def fresh_code() -> Iterator[None]:
    yield
    identity.forget()


@pytest.mark.parametrize("backend", ["local.model", "vllm.engine"])
def test_an_edit_of_the_renderer_asks_a_computing_backend_anew(
    fresh_code: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """`template.rendered` renders the last turn only: its code is part of the key, and so is what it gives; the row of
    an answer that comes out the same keeps its name."""
    folder = folder_of(tmp_path, {"backend": backend, "model_id": "m"})
    [before] = requests_for(prompts(1), folder, SAMPLING, 1, seed=1)
    edited(monkeypatch, ROOT / "pipeline" / "model" / "template.py", *LAST_TURN)
    [after] = requests_for(prompts(1), folder, SAMPLING, 1, seed=1)
    assert before.request_id != after.request_id
    assert (before.sample_id, before.seed) == (after.sample_id, after.seed)


def test_the_rows_of_two_engines_of_one_model_have_names_of_their_own(tmp_path: Path) -> None:
    cards = [{"backend": backend, "model_id": "m"} for backend in ("local.model", "vllm.engine", "fake.words")]
    folders = [folder_of(tmp_path / card["backend"], card) for card in cards]
    names = {requests_for(prompts(1), folder, SAMPLING, 1, seed=1)[0].sample_id for folder in folders}
    assert len(names) == 3


def test_an_edit_of_a_client_pays_for_nothing(
    fresh_code: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, {"backend": "http.openai", "model_id": "m"})
    [before] = requests_for(prompts(1), folder, SAMPLING, 1, seed=1)
    edited(monkeypatch, ROOT / "pipeline" / "backends" / "http.py", "Where a model is served;", "Where it is;")
    edited(monkeypatch, ROOT / "pipeline" / "model" / "template.py", *LAST_TURN)
    assert requests_for(prompts(1), folder, SAMPLING, 1, seed=1) == [before]


def test_what_is_rendered_is_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the code that fetches an answer does not count, the prompt that is sent does."""
    folder = folder_of(tmp_path, RENDERS)
    [before] = requests_for(prompts(1), folder, SAMPLING, 1, seed=1)
    (folder / "tokenizer" / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}!", "utf-8")
    [after] = requests_for(prompts(1), folder, SAMPLING, 1, seed=1)
    assert before.request_id != after.request_id and before.earlier_id == after.earlier_id


def test_answers_under_their_earlier_ids_are_carried(tmp_path: Path, told: Told, how: How) -> None:
    """A memo of the time before ids held the rendered prompt: nothing is paid for again, unless the prompt differs."""
    folder = folder_of(tmp_path, RENDERS)
    requests = requests_for(prompts(4), folder, SAMPLING, 2, seed=1)
    lengths = {request.request_id: request.prompt_tokens for request in requests}
    memo = Memo(how.memo)
    for number, request in enumerate(requests):
        tokens = lengths[request.request_id] + (number == 0)
        memo.put({request.earlier_id: {**Answer("old", f"paid {number}", "stop").__dict__, "prompt_tokens": tokens}})
    assert known(requests, SAMPLING, how) == {r.request_id for r in requests[1:]}
    answers = ask(folder, requests, SAMPLING, how)
    assert [answers[r.request_id].content for r in requests] == ["yes", *(f"paid {n}" for n in range(1, 8))]
    assert len(told.requests) == 1
    assert memo.get(r.earlier_id for r in requests[1:]) == {}


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        (Structured(choice=("yes", "no")), "no", "maybe"),
        (Structured(regex=r"\d+"), "42", "42 apples"),
        (Structured(json_schema={"type": "object", "required": ["a"]}), '{"a": 1}', '{"b": 1}'),
    ],
)
def test_an_answer_without_the_form_is_asked_for_again(
    form: Structured, good: str, bad: str, model: Path, told: Told, how: How, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a seed of its own, counted; a second run pays for nothing, the bad attempts included."""
    sampling = Sampling(1.0, 1.0, 8, structured=form)
    requests = requests_for(prompts(20), model, sampling, 1, seed=3)
    seen: dict[int, int] = {}

    def say(request: GenerateRequest) -> str:
        seen[request.seed] = seen.get(request.seed, 0) + 1
        return good if request.seed % 2 else bad

    told.say = say
    first = ask(model, requests, sampling, how)
    assert set(seen.values()) == {1}
    fine = [a for a in first.values() if a.error is None]
    assert {a.content for a in fine} == {good}
    assert {a.attempts for a in fine} >= {1, 2}
    failed = [a for a in first.values() if a.error is not None]
    assert all(a.attempts == 4 and "does not have the form" in (a.error or "") for a in failed)
    assert "asked for again" in capsys.readouterr().err
    asked = len(told.requests)
    assert ask(model, requests, sampling, how) == first
    assert len(told.requests) == asked


def test_a_greedy_answer_without_the_form_is_asked_once(model: Path, told: Told, how: How) -> None:
    sampling = Sampling(0.0, 1.0, 8, structured=Structured(choice=("no",)))
    [answer] = ask(model, requests_for(prompts(1), model, sampling, 1, seed=3), sampling, how).values()
    assert (answer.attempts, answer.content, len(told.requests)) == (1, None, 1)


def test_a_change_of_the_servers_build_is_said(
    model: Path, told: Told, how: How, capsys: pytest.CaptureFixture[str]
) -> None:
    told.builds = ("fp1", "fp2")
    answers = ask(model, requests_for(prompts(6), model, SAMPLING, 1, seed=1), SAMPLING, how)
    assert {answer.fingerprint for answer in answers.values()} == {"fp1", "fp2"}
    assert "(system_fingerprint): 4 by fp1, 2 by fp2" in capsys.readouterr().err


def test_a_text_is_read_once(model: Path, told: Told, how: How) -> None:
    """Equal texts share a reading, and a second run reads nothing; other wishes are another reading."""
    texts = [Tokens("a", [1, 2, 3], [1, 2]), Tokens("b", [1, 2, 3], [1, 2]), Tokens("c", [1, 2, 4], [2])]
    first = {r.id: r for r in read_all(model, texts, how, Want(top_k=3))}
    again = {r.id: r for r in read_all(model, texts, how, Want(top_k=3))}
    assert len(told.sequences) == 2
    assert first.keys() == again.keys() == {"a", "b", "c"}
    for key, reading in first.items():
        for name in ("target_logprob", "topk_ids", "topk_logprobs", "tail_mass"):
            kept = getattr(again[key], name)
            np.testing.assert_array_equal(getattr(reading, name), kept)
            assert kept.dtype == getattr(reading, name).dtype
    list(read_all(model, texts, how, Want(top_k=4)))
    assert len(told.sequences) == 4


def test_what_was_read_before_an_end_is_kept(
    model: Path, told: Told, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking_read, "KEEP_READINGS_S", 0.0)
    texts = [Tokens(str(i), [1, i], [1]) for i in range(10)]
    reading = read_all(model, texts, how)
    for _ in range(4):
        next(reading)
    reading.close()
    assert len(list(read_all(model, texts, how))) == 10
    assert len(told.sequences) == 10


def test_a_cap_is_never_passed_by_instances_that_share_it(tmp_path: Path) -> None:
    ledgers = [Ledger(tmp_path, "teacher", max_tokens=1000, max_cost=None) for _ in range(4)]

    def spend(ledger: Ledger) -> None:
        while True:
            try:
                ledger.reserve(30, 0.0)
            except CapReached:
                return
            ledger.settle(30, 0.0, 20, 0.0)

    threads = [threading.Thread(target=spend, args=(ledger,)) for ledger in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 970 < ledgers[0].spent().tokens <= 1000


def test_what_was_in_flight_at_a_kill_counts_in_full(tmp_path: Path) -> None:
    Ledger(tmp_path, "teacher", max_tokens=None, max_cost=1.0).reserve(10, 0.75)
    with pytest.raises(CapReached, match=r"run.endpoints.teacher.max_cost is 1 .* 0.75 are spent.* may need 0.5"):
        Ledger(tmp_path, "teacher", max_tokens=None, max_cost=1.0).reserve(10, 0.5)
    Ledger(tmp_path, "other", max_tokens=None, max_cost=1.0).reserve(10, 0.5)


def test_pending_shows_what_is_in_no_table_yet(model: Path, told: Told, how: How, tmp_path: Path) -> None:
    from pipeline.tables.rules import query
    from pipeline.tables.sql import PENDING

    ask(model, requests_for(prompts(3), model, SAMPLING, 2, seed=1), SAMPLING, how)
    answers = Memo(how.memo).table(PENDING, {how.label})
    rows = query(tmp_path / "data", "SELECT * FROM pending", answers).to_pylist()
    assert len(rows) == 6
    assert Memo(how.memo).table(PENDING, {"generate@other"}).num_rows == 0
    assert {(row["instance"], row["content"]) for row in rows} == {("generate@teacher", "yes")}
