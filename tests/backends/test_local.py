"""Models run in this process: bit-equal answers and readings however they are batched, for several architectures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from pipeline.backends import local
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.kinds.backend import Answer, GenerateRequest, Reading, Sampling, Tokens, Want
from pipeline.model import load
from pipeline.origins import local as origins
from pipeline.tables import ids
from pipeline.text.thinking import split_thinking

EMBEDDED = Path(__file__).parents[2] / "data" / "embedded" / "teacher"
VOCABULARY, CONTEXT, WINDOW = 64, 192, 40
ROPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT,
}
# Grouped queries, a sliding window in one layer or in all, soft-capped logits, learned positions.
CONFIGS = {
    "gpt2": transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=48, n_layer=2, n_head=4, n_positions=CONTEXT),
    "llama": transformers.LlamaConfig(**ROPE),
    "mistral": transformers.MistralConfig(**ROPE, sliding_window=WINDOW),
    "gemma2": transformers.Gemma2Config(
        **ROPE, sliding_window=WINDOW, final_logit_softcapping=2.0, query_pre_attn_scalar=16
    ),
}
# Below and above the length from which prompts are padded; above and below the window.
QUESTIONS = ["1+2", "rev abc", *("7+" * n + "1" for n in (12, 29, 30, 31, 32, 33, 38, 45, 60, 70))]
SAMPLED = Sampling(1.0, 0.95, 32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name, config in CONFIGS.items():
        made[name] = tmp_path_factory.mktemp(name)
        torch.manual_seed(5)
        net = transformers.AutoModelForCausalLM.from_config(config)
        # Wide weights: nearly uniform answers would hide an error.
        for weight in net.parameters():
            if weight.ndim == 2:
                torch.nn.init.normal_(weight, std=0.3)
        net.save_pretrained(made[name])
        (made[name] / "tokenizer").mkdir()
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(EMBEDDED / file, made[name] / "tokenizer")
    return made


@pytest.fixture(params=CONFIGS)
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


def opened(folder: Path, batch_rows: int = 64, dtype: str = "float32") -> local.LocalModel:
    how = How(RunSettings(batch_rows=batch_rows, device="cpu"), folder, "generate@asked")
    with local.model(folder=folder, card={"dtype": dtype}, how=how) as backend:
        return backend


def asked(texts: Sequence[str], k: int = 2) -> list[GenerateRequest]:
    return [
        GenerateRequest(
            f"{text}/{sample}",
            text,
            [{"role": "user", "content": text}],
            sample,
            ids.seed_of(17, "generate", text, sample),
        )
        for text in texts
        for sample in range(k)
    ]


def answered(
    backend: local.LocalModel, requests: Sequence[GenerateRequest], sampling: Sampling = SAMPLED
) -> dict[str, Answer]:
    return {answer.request_id: answer for answer in backend.generate(requests, sampling)}


def sequences(count: int = 60) -> list[Tokens]:
    """Sequences of 2 to CONTEXT tokens, with one to all of their tokens asked about."""
    draw = np.random.default_rng(3)
    made = []
    for number in range(count):
        length = int(draw.integers(2, CONTEXT + 1))
        first = int(draw.integers(1, length))
        tokens = draw.integers(0, VOCABULARY, length).tolist()
        made.append(Tokens(f"{number:02d}", tokens, range(first, length if number % 7 else first + 1)))
    return made


def readings(backend: local.LocalModel, asked: Sequence[Tokens], **wanted: Any) -> dict[str, Reading]:
    return {reading.id: reading for reading in backend.read(asked, Want(**wanted))}


def same(first: Reading, second: Reading) -> bool:
    """Equal to the last bit."""
    return all(np.array_equal(value, getattr(second, name)) for name, value in vars(first).items() if value is not None)


def test_answers_do_not_depend_on_their_batch(folder: Path) -> None:
    """Log-probabilities too, bit for bit: alone, backwards, in small batches; prompts of many lengths."""
    requests = asked(QUESTIONS)
    backend = opened(folder)
    together = answered(backend, requests)
    assert len({answer.prompt_tokens for answer in together.values()}) == len(QUESTIONS) - 1
    assert max(answer.prompt_tokens or 0 for answer in together.values()) > 2 * local.PAD_FROM
    for request in requests[::7]:
        assert answered(backend, [request])[request.request_id] == together[request.request_id]
    assert answered(backend, requests[::-1]) == together
    assert answered(opened(folder, batch_rows=3), requests) == together


def test_a_prompt_at_the_end_of_the_context_waits_for_those_beside_it(folder: Path) -> None:
    """A row that has no more room stays in its batch while the others go on."""
    backend = opened(folder)
    prompts = [[7] * (CONTEXT - 2), [7] * (CONTEXT - 15)]
    assert len({local.prompt_width(len(prompt)) for prompt in prompts}) == 1
    sampling = Sampling(1.0, 1.0, 16)
    together = backend.complete(prompts, [1, 2], sampling)
    assert [len(answer) <= room for answer, room in zip(together, (2, 15), strict=True)] == [True, True]
    assert len(together[1]) > 2
    assert together == [backend.complete([p], [seed], sampling)[0] for p, seed in zip(prompts, (1, 2), strict=True)]


def test_padded_prompts_are_answered_as_unpadded_ones(folder: Path) -> None:
    """The log-probabilities of an answer are those of a forward pass over its tokens alone."""
    backend = opened(folder)
    requests = asked(QUESTIONS, k=1)
    for key, answer in answered(backend, requests).items():
        prompt = backend.chat.prompt([{"role": "user", "content": key.split("/")[0]}])
        assert answer.token_ids
        with torch.inference_mode():
            logits_TV = backend.net(torch.tensor([[*prompt, *answer.token_ids]]), use_cache=False).logits[0]
        log_p = torch.log_softmax(logits_TV[len(prompt) - 1 : -1], -1)
        expected = log_p[range(len(answer.token_ids)), answer.token_ids]
        np.testing.assert_allclose(answer.logprobs, expected, atol=2e-4)


def test_a_prompt_is_padded_by_at_most_an_eighth_and_never_by_nothing() -> None:
    assert [local.prompt_width(n) for n in (1, 18, 63)] == [1, 18, 63]
    for length in range(local.PAD_FROM, 4096):
        assert length < local.prompt_width(length) <= length * 9 / 8
    assert len({local.prompt_width(n) for n in range(local.PAD_FROM, 4096)}) < 64


def test_every_answer_keeps_to_the_context(folders: dict[str, Path]) -> None:
    """Prompts of one batch have their own room; one that fills the context is an answer with an error."""
    backend = opened(folders["llama"])
    texts = ["7" * n for n in (174, 176, 178, 250)]
    answers = answered(backend, asked(texts, k=8), Sampling(1.0, 1.0, 64))
    for answer in answers.values():
        assert answer.prompt_tokens is not None
        if answer.prompt_tokens >= CONTEXT:
            assert answer.finish_reason == "error"
        elif answer.finish_reason == "length":
            assert answer.prompt_tokens + (answer.completion_tokens or 0) == CONTEXT
    assert {answer.finish_reason for answer in answers.values()} >= {"length", "error"}


def test_a_stop_string_ends_an_answer_at_once(folders: dict[str, Path]) -> None:
    """The text before it is that of the whole answer, and the tokens end with the one that brought it."""
    backend = opened(folders["llama"])
    requests = asked(QUESTIONS)
    whole, stops = answered(backend, requests), ("1", "k", "ab", "+3")
    cut = answered(backend, requests, replace(SAMPLED, stop=stops))
    ended = 0
    for key, answer in cut.items():
        text = whole[key].content or ""
        found = [text.find(stop) for stop in stops if stop in text]
        assert answer.content == (text[: min(found)] if found else text)
        assert answer.token_ids == (whole[key].token_ids or [])[: answer.completion_tokens]
        if found:
            assert answer.finish_reason == "stop"
            assert not any(s in backend.chat.decode((answer.token_ids or [])[:-1]) for s in stops)
            ended += answer.completion_tokens < whole[key].completion_tokens
    assert ended > 5


def test_readings_do_not_depend_on_their_batch(folder: Path) -> None:
    backend = opened(folder)
    for wanted in ({"top_k": 5, "embedding": True}, {}):
        together = readings(backend, sequences(), **wanted)
        assert len(together) == len(sequences())
        for sequence in sequences()[::3]:
            assert same(readings(backend, [sequence], **wanted)[sequence.id], together[sequence.id])
        for key, reading in readings(opened(folder, batch_rows=5), sequences()[::-1], **wanted).items():
            assert same(reading, together[key])


def test_readings_are_those_of_a_plain_forward_pass(folder: Path) -> None:
    backend = opened(folder)
    for reading in backend.read(sequences(), Want(top_k=VOCABULARY, embedding=True)):
        [sequence] = [s for s in sequences() if s.id == reading.id]
        at = list(sequence.positions)
        with torch.inference_mode():
            out = backend.net(torch.tensor([sequence.token_ids]), use_cache=False, output_hidden_states=True)
        log_p = torch.log_softmax(out.logits[0, [t - 1 for t in at]].double(), -1).numpy()
        targets = [sequence.token_ids[t] for t in at]
        np.testing.assert_allclose(reading.target_logprob, log_p[range(len(at)), targets], atol=2e-4)
        # K as large as the vocabulary is the whole distribution.
        assert reading.topk_ids is not None
        assert reading.topk_ids.shape == (len(at), VOCABULARY)
        np.testing.assert_allclose(reading.topk_logprobs, np.take_along_axis(log_p, reading.topk_ids, 1), atol=2e-4)
        np.testing.assert_allclose(reading.tail_mass, 0, atol=0)
        states = out.hidden_states[-1][0, at].mean(0)
        np.testing.assert_allclose(reading.embedding, states, atol=1e-4)


def test_a_loaded_model_computes_what_transformers_loads(folder: Path) -> None:
    ids = torch.tensor([sequences()[0].token_ids])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        torch.testing.assert_close(load.load(folder, "float32")(ids).logits, theirs(ids).logits, atol=1e-5, rtol=0)


def test_gpt2s_activation_is_one_kernel(folders: dict[str, Path]) -> None:
    net = load.load(folders["gpt2"], "float32")
    assert all(str(block.mlp.act) == "GELU(approximate='tanh')" for block in net.transformer.h)


def test_no_logits_are_made_of_positions_not_asked_about(folders: dict[str, Path]) -> None:
    backend = opened(folders["gemma2"])
    made = []
    backend.head.register_forward_hook(lambda _head, _given, logits: made.append(logits.shape))
    asked = sequences()
    list(backend.read(asked))
    least = sum(len(s.positions) for s in asked)
    assert least <= sum(shape[:-1].numel() for shape in made) <= least + local.ROWS * len(made)


def test_a_batch_is_read_within_its_bounds(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, tokens and logits of one forward pass are bounded, and the readings are the same bytes."""
    wide = readings(opened(folders["llama"], 512), sequences())
    monkeypatch.setattr(local, "MAX_LOGITS", 300 * VOCABULARY)
    monkeypatch.setattr(local, "CHUNK", 1)
    backend = opened(folders["llama"], 6)
    logits, rows = [], []
    backend.head.register_forward_hook(lambda _head, _given, out: logits.append(out.shape[1]))
    backend.net.model.embed_tokens.register_forward_hook(lambda _table, _given, out: rows.append(out.shape[0]))
    narrow = readings(backend, sequences())
    assert max(logits) <= 300
    assert max(rows) <= 6
    assert all(same(narrow[key], wide[key]) for key in wide)


def test_where_batches_show_it_is_said_once(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    requests = asked(QUESTIONS[:5])
    exact = opened(folders["llama"])
    capsys.readouterr()
    answered(exact, requests)
    assert capsys.readouterr().err == ""
    backend = opened(folders["llama"], dtype="bfloat16")
    capsys.readouterr()
    first = answered(backend, requests)
    said = capsys.readouterr().err
    assert said.startswith("generate@asked: ")
    assert "answers came out different" in said
    assert len(first) == len(requests)
    answered(backend, requests)
    assert capsys.readouterr().err == ""


def ending(place: Path, named: dict[str, object], eos: str = "<unk>") -> Path:
    """The shipped teacher whose template writes its end itself, and whose tokenizer names another; `named` is what its
    files say of `eos_token_id`, by file: the shape of Gemma."""
    shutil.copytree(EMBEDDED, place)
    template = (place / "chat_template.jinja").read_text("utf-8")
    (place / "chat_template.jinja").write_text(template.replace("{{ eos_token }}", "</s>"), "utf-8")
    for file in ("tokenizer_config.json", "config.json", "generation_config.json"):
        told = json.loads((place / file).read_text("utf-8"))
        told.pop("eos_token_id", None)
        if file == "tokenizer_config.json":
            told["eos_token"] = eos
        elif file in named:
            told["eos_token_id"] = named[file]
        (place / file).write_text(json.dumps(told), "utf-8")
    if "generation_config.json" not in named:
        (place / "generation_config.json").unlink()
    return place


GENERATION, CONFIG = "generation_config.json", "config.json"


@pytest.mark.parametrize(
    "named",
    [
        {GENERATION: [3, 2]}, {GENERATION: [2, 3]}, {GENERATION: 2}, {GENERATION: [2]}, {GENERATION: [39, 2]},
        {GENERATION: 36}, {GENERATION: [37, 38]}, {GENERATION: [2, 2]}, {GENERATION: [2], CONFIG: 36}, {CONFIG: 2},
        {CONFIG: [3, 2]}, {CONFIG: [36, 2]}, {GENERATION: None, CONFIG: None},
    ],
)  # fmt: skip
def test_an_answer_ends_where_transformers_ends_it(tmp_path: Path, named: dict[str, object]) -> None:
    """At every end token that the model's files name, and it has stopped there; the model's id tells them."""
    source = ending(tmp_path / "source", named)
    out = tmp_path / "models" / "teacher"
    out.mkdir(parents=True)
    card = origins.folder(path=str(source))(out)
    backend, greedy = opened(out), Sampling(0.0, 1.0, 24)
    net = transformers.AutoModelForCausalLM.from_pretrained(source)
    net.generation_config.pad_token_id = 0
    for text in ("sort cab", "add 050 088", "rev abc"):
        [answer] = answered(backend, asked([text], k=1), greedy).values()
        prompt = torch.tensor([backend.chat.prompt([{"role": "user", "content": text}])])
        wanted = net.generate(prompt, do_sample=False, max_new_tokens=24)[0, prompt.shape[1] :].tolist()
        assert answer.token_ids == wanted
        ends = set(backend.chat.end_ids)
        assert answer.finish_reason == ("stop" if wanted[-1] in ends else "length")
    plain = {**named, GENERATION: [39]} if GENERATION not in named else {**named, GENERATION: [38]}
    other = tmp_path / "other"
    other.mkdir()
    assert origins.folder(path=str(ending(tmp_path / "another", plain)))(other)["model_id"] != card["model_id"]


def test_the_case_of_two_end_tokens(tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    origins.folder(path=str(ending(tmp_path / "source", {GENERATION: [3, 2]})))(tmp_path / "teacher")
    backend = opened(tmp_path / "teacher")
    [answer] = answered(backend, asked(["sort cab"], k=1), Sampling(0.0, 1.0, 24)).values()
    assert (answer.content, answer.finish_reason, answer.completion_tokens) == ("#abct", "stop", 6)
    # A student of this form learns to end there too.
    rendered = backend.chat.example([{"role": "user", "content": "sort cab"}], "#abct")
    assert rendered.token_ids[rendered.spans[0][1] - 1] == 2


@pytest.mark.parametrize("marks", [("[THINK]", "[/THINK]"), ("<think>", "</think>")])
def test_marks_of_a_thought_that_are_special_tokens_are_not_lost(
    folders: dict[str, Path], tmp_path: Path, marks: tuple[str, str]
) -> None:
    """Decoding leaves special tokens out, and with the marks a thought would run into the answer."""
    folder = tmp_path / "thinker"
    shutil.copytree(folders["llama"], folder)
    file = folder / "tokenizer" / "tokenizer.json"
    told = json.loads(file.read_text("utf-8"))
    vocabulary = told["model"]["vocab"]
    for old, mark in zip("TF", marks, strict=True):
        vocabulary[mark] = vocabulary.pop(old)
        told["added_tokens"].append({**told["added_tokens"][0], "id": vocabulary[mark], "content": mark})
    file.write_text(json.dumps(told), "utf-8")
    chat = opened(folder).chat
    ids = [vocabulary[letter] for letter in (marks[0], "a", marks[1], "b", "</s>")]
    assert split_thinking(chat.decode(ids)) == ("a", "b")
    assert chat.decode([vocabulary["<s>"], vocabulary["a"], vocabulary["<pad>"]]) == "a"


def test_inline_thinking_is_reasoning(folders: dict[str, Path], tmp_path: Path) -> None:
    """A model that can say the tags: what it thought goes to `reasoning`, the rest is the answer."""
    folder = tmp_path / "thinker"
    shutil.copytree(folders["llama"], folder)
    file = folder / "tokenizer" / "tokenizer.json"
    told = json.loads(file.read_text("utf-8"))
    vocabulary = told["model"]["vocab"]
    vocabulary["<think>"], vocabulary["</think>"] = vocabulary.pop("T"), vocabulary.pop("F")
    file.write_text(json.dumps(told), "utf-8")
    backend = opened(folder)
    thought = 0
    for answer in answered(backend, asked(QUESTIONS)).values():
        reasoning, content = split_thinking(backend.chat.decode(answer.token_ids or []))
        assert (answer.reasoning, answer.content) == (reasoning or None, content)
        thought += answer.reasoning is not None
    assert thought
