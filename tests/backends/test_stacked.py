"""A vision-language model that is run here: what it says depends on the picture, and is what reading it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipeline.core.methods import find  # noqa: E402
from pipeline.core.run import How  # noqa: E402
from pipeline.core.settings import RunSettings  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.kinds.backend import Answer, GenerateRequest, Sampling, Tokens, Want, open_model  # noqa: E402
from pipeline.model.folder import hashes, network_of  # noqa: E402
from pipeline.tables.tensors import cell  # noqa: E402
from pipeline.viewing import tokens  # noqa: E402
from tests.networks.test_classifier import made  # noqa: E402

MADE: dict[str, Any] = {
    "alphabet": "abcdef ?", "size": 8, "patch": 4, "width": 16, "layers": 1, "heads": 2, "tower": 1, "context": 24,
    "seed": 5,
}  # fmt: skip
ASKED = [{"role": "user", "content": "a?"}]
GREEDY, SAMPLED = Sampling(0.0, 1.0, 6), Sampling(1.0, 1.0, 6)
PICTURES = [np.random.default_rng(i).integers(0, 256, (8, 8, 3)).astype(np.uint8) for i in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("stacked") / "asked", "fresh.llava", **MADE)


def how(folder: Path) -> How:
    return How(RunSettings(device="cpu", batch_rows=8), folder.parent, "generate@asked")


def requests(words: list[str]) -> list[GenerateRequest]:
    return [
        GenerateRequest(
            f"r{i}", f"p{i}", [{"role": "user", "content": text}], 0, 7 + i, inputs=cell({"image": PICTURES[i % 4]})
        )
        for i, text in enumerate(words)
    ]  # fmt: skip


def answers(folder: Path, asked: list[GenerateRequest], sampling: Sampling) -> dict[str, Answer]:
    with open_model(folder, how(folder)) as opened:
        return {answer.request_id: answer for answer in opened.generate(asked, sampling)}


def test_it_is_a_language_model_with_a_form_of_its_own(folder: Path) -> None:
    assert network_of(folder / "tokenizer") == "language.stacked"
    assert json.loads((folder / "model.json").read_text("utf-8"))["backend"] == "stacked.local"
    network = find("network", "language.stacked").factory()
    inputs = cell({"image": PICTURES[0]})
    packed = network.pack(folder / "tokenizer", [{"role": "user", "content": "a?"}], "bc", inputs)
    # <s>, four patches, `a?`, <assistant>, `bc`, </s>.
    assert packed.token_ids == [1, 5, 5, 5, 5, 6, 13, 4, 7, 8, 2] and packed.spans == [(8, 11)]
    assert len(set(hashes(folder / "tokenizer"))) == 2


def test_the_picture_decides(folder: Path) -> None:
    same = [GenerateRequest(f"r{i}", f"p{i}", [{"role": "user", "content": "a?"}], 0, 7, inputs=cell({"image": p}))
            for i, p in enumerate(PICTURES)]  # fmt: skip
    found = answers(folder, same, GREEDY)
    assert len({tuple(answer.logprobs or ()) for answer in found.values()}) == len(PICTURES)


def test_an_answer_does_not_depend_on_what_else_is_asked(folder: Path) -> None:
    asked = requests(["a?", "b?", "ab ?", "c?", "de?", "f", "a?", "bb?", "c ?", "d?"])
    together, back = answers(folder, asked, SAMPLED), answers(folder, asked[::-1], SAMPLED)
    assert together == back == {r.request_id: answers(folder, [r], SAMPLED)[r.request_id] for r in asked}


def test_what_is_sampled_has_the_probability_of_reading_it(folder: Path) -> None:
    asked = requests(["a?", "b?", "ab ?"])
    network = find("network", "language.stacked").factory()
    for request in asked:
        answer = answers(folder, [request], SAMPLED)[request.request_id]
        prompt, _ = network.asked(folder / "tokenizer", request.messages, request.inputs)
        tokens = [*prompt, *(answer.token_ids or ())]
        places = list(range(len(prompt), len(tokens)))
        with open_model(folder, how(folder)) as opened:
            want = Want(top_k=3, embedding=True, taps=("last",))
            [reading] = opened.read([Tokens("t", tokens, places, request.inputs)], want)
            [studied] = opened.read([Tokens("t", tokens, places, request.inputs)], Want(gradient=4))
        np.testing.assert_allclose(reading.target_logprob, answer.logprobs, atol=1e-5)
        assert reading.topk_ids.shape == (len(places), 3) and reading.features["last"].shape == (len(places), 16)
        np.testing.assert_allclose(reading.embedding, reading.features["last"].mean(0), atol=1e-6)
        assert studied.gradient.shape == (4,)


def test_it_ends_where_it_should(folder: Path) -> None:
    asked = requests(["a?", "b?", "ab ?", "c?"])
    plain = answers(folder, asked, GREEDY)
    assert all(answer.finish_reason in ("stop", "length") for answer in plain.values())
    said = next(answer for answer in plain.values() if answer.content)
    first = (said.content or "")[0]
    cut = answers(folder, asked, Sampling(0.0, 1.0, 6, (first,)))[said.request_id]
    assert cut.content == "" and cut.finish_reason == "stop"
    [long] = answers(folder, requests(["a" * 30]), GREEDY).values()
    assert long.error == "the prompt has 36 tokens; the model's context of 24 leaves no room to answer"


@pytest.mark.parametrize(("inputs", "told"), [
    (None, "prompt p0 is about nothing but words"),
    ({"image": PICTURES[0][:4]}, "prompt p0 is a picture of 4 x 8 x 3, and the model looks at 8 x 8 x 3"),
    ({"x": np.ones((2, 2), np.float32)}, "prompt p0 is about x"),
])  # fmt: skip
def test_what_it_cannot_be_shown_is_refused(inputs: dict | None, told: str, folder: Path) -> None:
    [request] = requests(["a?"])
    other = GenerateRequest(**{**request.__dict__, "inputs": inputs and cell(inputs)})
    with pytest.raises(Refused, match=told):
        answers(folder, [other], GREEDY)


def test_a_model_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="pictures of 8 x 8 are not whole patches of 3"):
        made(tmp_path / "m", "fresh.llava", **{**MADE, "patch": 3})


def test_a_page_shades_its_tokens(folder: Path, tmp_path: Path) -> None:
    """`stillhouse view` asks it as it asks a language model, with the picture that a row is about."""
    assert tokens.readable(folder) and not tokens.readable(tmp_path)
    inputs = cell({"image": PICTURES[0]})
    packed = find("network", "language.stacked").factory().pack(folder / "tokenizer", ASKED, "bc", inputs)
    places = [at for start, end in packed.spans for at in range(start, end)]
    row = Tokens("e", packed.token_ids, places, inputs)
    tokens.read({"asked": folder}, row, RunSettings(device="cpu"), tmp_path)
    said = tokens.known({"asked": folder}, row, tmp_path / "data" / ".memo")["asked"]
    assert len(said) == len(places) == 3 and max(said) < 0
