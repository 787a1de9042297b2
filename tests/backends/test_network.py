"""A classifier as a backend: it answers with names, and reads what its examples hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipeline.core.methods import find  # noqa: E402
from pipeline.core.run import How  # noqa: E402
from pipeline.core.settings import RunSettings  # noqa: E402
from pipeline.kinds.backend import Backend, Descent, GenerateRequest, Sampling, Tokens, Want, open_model  # noqa: E402

NAMES = ("left", "right", "up")
WORDS = ["ab", "abcdabcdabcd", "dd", "cab", "abcd" * 5]
GREEDY = Sampling(0.0, 1.0, 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    place.mkdir()
    made = find("origin", "text.bert").factory(
        alphabet="abcd", outcomes=NAMES, width=16, layers=1, heads=2, context=32, seed=3
    )
    (place / "model.json").write_text(json.dumps(made(place)), "utf-8")
    return place


@pytest.fixture
def backend(folder: Path, tmp_path: Path) -> Iterator[Backend]:
    with open_model(folder, How(RunSettings(device="cpu", batch_rows=2), tmp_path, "generate@teacher")) as opened:
        yield opened


def asked(temperature_seed: int = 0) -> list[GenerateRequest]:
    return [
        GenerateRequest(f"{i}", f"p{i}", [{"role": "user", "content": word}], 0, temperature_seed * 100 + i)
        for i, word in enumerate(WORDS)
    ]


def examples(folder: Path) -> list[Tokens]:
    network = find("network", "classifier.text").factory()
    packed = [network.pack(folder / "tokenizer", request.messages, "up") for request in asked()]
    return [Tokens(f"{i}", p.token_ids, [0], p.inputs) for i, p in enumerate(packed)]


def test_it_answers_with_the_likeliest_name_and_its_probability(backend: Backend, folder: Path) -> None:
    answers = {a.request_id: a for a in backend.generate(asked(), GREEDY)}
    readings = {r.id: r for r in backend.read(examples(folder), Want(top_k=3))}
    assert answers.keys() == readings.keys() == {str(i) for i in range(len(WORDS))}
    for key, answer in answers.items():
        best = readings[key]
        assert answer.content == NAMES[best.topk_ids[0, 0]] and answer.finish_reason == "stop"
        assert answer.logprobs == [pytest.approx(best.topk_logprobs[0, 0], abs=1e-5)]
        assert best.target_logprob[0] == best.topk_logprobs[0][list(best.topk_ids[0]).index(2)]
        np.testing.assert_allclose(np.exp(best.topk_logprobs).sum() + best.tail_mass, 1, rtol=1e-5)


def test_what_is_not_asked_for_is_the_tail(backend: Backend, folder: Path) -> None:
    whole = {r.id: r for r in backend.read(examples(folder), Want(top_k=3))}
    for r in backend.read(examples(folder), Want(top_k=1, taps=("last",))):
        rest = np.exp(whole[r.id].topk_logprobs[0, 1:]).sum()
        np.testing.assert_allclose(r.tail_mass, [rest], rtol=1e-5)
        assert r.features["last"].shape == (1, 16)


def test_samples_follow_the_distribution(backend: Backend, folder: Path) -> None:
    first = next(r for r in backend.read(examples(folder), Want(top_k=3)) if r.id == "1")
    p = {NAMES[i]: float(np.exp(v)) for i, v in zip(first.topk_ids[0], first.topk_logprobs[0], strict=True)}
    sampling, drawn = Sampling(1.0, 1.0, 8), []
    for seed in range(400):
        request = asked(seed)[1]
        drawn += [a.content for a in backend.generate([request], sampling)]
    assert {name: drawn.count(name) / 400 for name in NAMES} == pytest.approx(p, abs=0.08)
    assert [a.content for a in backend.generate([asked(7)[1]], sampling)] == [drawn[7]]


def test_an_answer_that_is_no_outcome_is_an_unknown_place(folder: Path) -> None:
    network = find("network", "classifier.text").factory()
    packed = network.pack(folder / "tokenizer", [{"role": "user", "content": "ab"}], " somewhere ")
    assert packed.token_ids == [-1] and packed.length == 3


def test_a_gradient_is_that_of_the_outcome_that_is_asked_about(backend: Backend, folder: Path) -> None:
    """Its length is what a small step along it gains; and no other text counts."""
    texts = examples(folder)
    together = {r.id: r for r in backend.read(texts, Want(gradient=4096))}
    for tokens in texts[:2]:
        [alone] = backend.read([tokens], Want(gradient=4096, descent=Descent(1e-3, (tokens,))))
        np.testing.assert_array_equal(alone.gradient, together[tokens.id].gradient)
        before, after = alone.descent
        assert before == pytest.approx(-alone.target_logprob[0], abs=1e-5)
        # The projection's error, and the curve of the loss.
        assert (before - after) / 1e-3 == pytest.approx((alone.gradient**2).sum(), rel=0.15)
