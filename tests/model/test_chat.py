"""Rendering is that of `transformers`, token for token, and what is trained on is the answer and its end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from pipeline.errors import Refused
from pipeline.model.chat import Chat

EMBEDDED = Path(__file__).parents[2] / "data" / "embedded" / "base"
CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
DEFAULT_SYSTEM = (
    """\
{%- if messages[0].role != 'system' %}
    {{- '<|im_start|>system\\nYou are a careful assistant.<|im_end|>\\n' }}
{%- endif %}
"""
    + CHATML
)
# The generation prompt opens a thought, which the rendered answer does not have.
THINKING = CHATML.replace("assistant\\n'", "assistant\\n<think>\\n'")
# As many published ones: only the last answer keeps its spaces.
TRIMMED = CHATML.replace("message.content +", "(message.content if loop.last else message.content | trim) +")
ENDLESS = CHATML.replace(" + '<|im_end|>'", "")

USER = {"role": "user", "content": "What is 2 + 2?"}
CONVERSATIONS = [
    [USER],
    [{"role": "system", "content": "Be brief."}, USER],
    [USER, {"role": "assistant", "content": " Four. "}, {"role": "user", "content": "And 3 + 3?\n\nNow."}],
    [{"role": "user", "content": "caf\u00e9 \U0001f600 <b>&amp; {{ x }}"}],
]
ANSWERS = ["Six.", " six ", "1 + 2\n= 3", "\U0001f600 \u00e9", ""]


def made(folder: Path, template: str, *, inside_config: bool = False) -> Path:
    """A folder of a byte-level tokenizer whose padding token is its end token, as several published ones have."""
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(t, special=True) for t in ("<|im_start|>", "<|im_end|>")],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["assistant\nuser\nsystem\nWhat is 2 + 2? Four. Be brief. " * 4], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "special": True},
        "pad_token": "<|im_end|>",
        "clean_up_tokenization_spaces": False,
    }
    if inside_config:
        config["chat_template"] = template
    else:
        (folder / "chat_template.jinja").write_text(template, "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return folder


@pytest.fixture(params=["embedded", "chatml", "default system", "inside the config"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "embedded":
        return EMBEDDED
    template = DEFAULT_SYSTEM if request.param == "default system" else CHATML
    return made(tmp_path / "tokenizer", template, inside_config=request.param == "inside the config")


@pytest.mark.parametrize("messages", CONVERSATIONS, ids=["short", "system", "turns", "unicode"])
def test_tokens_are_those_of_transformers(folder: Path, messages: list[dict[str, str]]) -> None:
    from transformers import AutoTokenizer

    ours, theirs = Chat(folder), AutoTokenizer.from_pretrained(folder)
    wanted = {"tokenize": True, "return_dict": False}
    assert ours.prompt(messages) == theirs.apply_chat_template(messages, add_generation_prompt=True, **wanted)
    assert ours.eos_id == theirs.eos_token_id
    for answer in ANSWERS:
        whole = [*messages, {"role": "assistant", "content": answer}]
        assert ours.example(messages, answer).token_ids == theirs.apply_chat_template(whole, **wanted)


@pytest.mark.parametrize("messages", CONVERSATIONS, ids=["short", "system", "turns", "unicode"])
def test_what_is_trained_on_is_the_answer_and_its_end(folder: Path, messages: list[dict[str, str]]) -> None:
    chat = Chat(folder)
    known = [a for a in ANSWERS if "<unk>" not in chat.tokenizer.decode(chat.encode(a), skip_special_tokens=False)]
    assert known
    for answer in known:
        rendered = chat.example(messages, answer)
        ((start, end),) = rendered.spans
        assert rendered.token_ids[:start] == chat.prompt(messages)
        trained = chat.tokenizer.decode(rendered.token_ids[start:end], skip_special_tokens=False)
        assert trained == answer + chat.special["eos_token"]
        # What follows the end token, here a line break, is never learnt: the model would have to say it after its end.
        assert chat.tokenizer.decode(rendered.token_ids[end:], skip_special_tokens=False).strip() == ""


def test_an_earlier_answer_is_not_trained_on(tmp_path: Path) -> None:
    chat = Chat(made(tmp_path / "tokenizer", CHATML))
    rendered = chat.example(CONVERSATIONS[2], "Six.")
    assert len(rendered.spans) == 1
    assert rendered.token_ids.count(chat.eos_id) == 4


def test_a_generation_prompt_that_the_answer_does_not_begin_with_is_refused(tmp_path: Path) -> None:
    chat = Chat(made(tmp_path / "tokenizer", THINKING))
    with pytest.raises(Refused, match="does not begin with the unanswered one"):
        chat.example([USER], "4")


def test_a_template_that_rewrites_earlier_turns_is_refused_only_where_it_does(tmp_path: Path) -> None:
    chat = Chat(made(tmp_path / "tokenizer", TRIMMED))
    assert chat.example([USER], "4").spans
    with pytest.raises(Refused, match="does not begin with the unanswered one"):
        chat.example([{"role": "user", "content": " 2 + 2? "}], "4")


def test_a_template_that_never_ends_an_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="would never stop"):
        Chat(made(tmp_path / "tokenizer", ENDLESS)).example([USER], "4")


def test_a_template_that_refuses_is_a_refusal_and_reads_no_clock(tmp_path: Path) -> None:
    template = (
        "{{ strftime_now('%Y') }}{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    chat = Chat(made(tmp_path / "tokenizer", template))
    assert chat.text([USER], answer_next=True) == "2024"
    with pytest.raises(Refused, match="no system"):
        chat.text(CONVERSATIONS[1], answer_next=True)


def test_a_template_cannot_reach_out(tmp_path: Path) -> None:
    chat = Chat(made(tmp_path / "tokenizer", "{{ ''.__class__.__mro__[1].__subclasses__() }}"))
    with pytest.raises(Refused, match="refuses a conversation"):
        chat.text([USER], answer_next=True)


def test_hashes_tell_a_changed_template_and_a_changed_tokenizer(tmp_path: Path) -> None:
    one, two = Chat(made(tmp_path / "a", CHATML)), Chat(made(tmp_path / "b", DEFAULT_SYSTEM))
    assert (one.tokenizer_hash, one.template_hash) != (two.tokenizer_hash, two.template_hash)
    assert one.tokenizer_hash == two.tokenizer_hash != Chat(EMBEDDED).tokenizer_hash
    assert Chat(made(tmp_path / "c", CHATML, inside_config=True)).template_hash == one.template_hash


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path, name: str) -> None:
    folder = made(tmp_path / "tokenizer", CHATML)
    (folder / name).unlink()
    with pytest.raises(Refused, match=f"has no {name}"):
        Chat(folder)


def test_a_folder_without_a_template_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(EMBEDDED, folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(Refused, match=r"Put a chat_template\.jinja beside"):
        Chat(folder).prompt([USER])
