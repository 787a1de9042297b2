"""Small tokenizers of every common family, chat templates of every common shape, and folders of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from pipeline.model.chat import Chat

EMBEDDED = Path(__file__).parents[2] / "data" / "embedded" / "base"
BOS, EOS, OPEN = "<s>", "<|im_end|>", "<|im_start|>"
SPECIAL = (BOS, EOS, OPEN)
# Joints that merge where nothing keeps them apart: a prompt's end with an answer's beginning.
TEXT = (
    """\
assistant user system What is 2 + 2? Four. Paris is a city. Be brief.
[INST] What [/INST]{"a": 1}[/INST]{"a": 1} ASSISTANT: Paris ASSISTANT: Four ASSISTANT:  4
### Response:

Paris
### Response:
 Four
<think>

</think>

Four <think>
2+2
</think>
"""
    * 6
)

CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content + eos_token }}{% else %}"
    "{{ '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}"
)
VICUNA = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ 'ASSISTANT: ' + m.content + eos_token }}{% else %}"
    "{{ 'USER: ' + m.content + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT: ' }}{% endif %}"
)
ALPACA = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '### Response:\\n' + m.content + eos_token }}{% else %}"
    "{{ '### Instruction:\\n' + m.content + '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)
# The prompt opens a thought; an answer without one is rendered with an empty one.
OPENED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\\n<think>\\n' + "
    "(m.reasoning_content or '') + '\\n</think>\\n\\n' + m.content + '<|im_end|>\\n' }}{% else %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
)
# The same, with a prompt that opens nothing.
OFFERED = OPENED.replace("{{ '<|im_start|>assistant\\n<think>\\n' }}", "{{ '<|im_start|>assistant\\n' }}")
HARMONY = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant' }}{% if m.thinking %}"
    "{{ '<|channel|>analysis<|message|>' + m.thinking + '<|end|><|im_start|>assistant' }}{% endif %}"
    "{{ '<|channel|>final<|message|>' + m.content + '<|im_end|>' }}{% else %}"
    "{{ '<|im_start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
)
GENERATION = (
    "{%- for m in messages %}{%- if m.role == 'assistant' %}{{- '<|im_start|>' }}{%- generation %}"
    "{{- m.content + eos_token }}{%- endgeneration %}{%- else %}{{- m.content }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>' }}{%- endif %}"
)
JSON = (
    "{% for m in messages %}{{ m.content | tojson(ensure_ascii=False) }}{% if m.role == 'assistant' %}"
    "{{ eos_token }}{% endif %}{% endfor %}"
)
TEMPLATES = {
    "chatml": CHATML, "inst": INST, "vicuna": VICUNA, "alpaca": ALPACA, "opened": OPENED, "offered": OFFERED,
    "harmony": HARMONY, "generation": GENERATION, "json": JSON,
}  # fmt: skip


def _tokens() -> list[AddedToken]:
    return [AddedToken(text, special=True, normalized=False) for text in SPECIAL]


def _bpe(pre: pre_tokenizers.PreTokenizer | None, decoder: decoders.Decoder, **more: object) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False, **more))
    if pre is not None:
        tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoder
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[*_tokens(), AddedToken("<unk>", special=True)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.split("\n\n\n"), trainer)
    return tokenizer


def byte_level() -> Tokenizer:
    """As GPT-2's."""
    return _bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())


def prefixed() -> Tokenizer:
    """As GPT-2's with a blank before every text."""
    return _bpe(pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel())


def unparted() -> Tokenizer:
    """Bytes that merge over words and lines: every joint may be one token."""
    return _bpe(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel())


def merging(*pairs: tuple[str, str]) -> Tokenizer:
    """Bytes, and the merges that are given."""
    letters = [*SPECIAL, "<unk>", *pre_tokenizers.ByteLevel.alphabet(), *(a + b for a, b in pairs)]
    tokenizer = Tokenizer(models.BPE({text: i for i, text in enumerate(dict.fromkeys(letters))}, list(pairs)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*_tokens(), AddedToken("<unk>", special=True)])
    return tokenizer


def _sentences() -> list[str]:
    return [line + "\n" for line in TEXT.split("\n")] + TEXT.split("\n\n\n")


def metaspace(scheme: str) -> Tokenizer:
    """SentencePiece's BPE as `transformers` 4.40 and later have it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme, split=False)
    return _trained(tokenizer)


def legacy() -> Tokenizer:
    """SentencePiece's BPE as Llama 2 has it: a mark before every piece between special tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    return _trained(tokenizer)


def unigram() -> Tokenizer:
    """SentencePiece's other model, whose vocabulary holds the special tokens among its pieces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=[*_tokens(), AddedToken("<unk>", special=True)], unk_token="<unk>",
        show_progress=False, initial_alphabet=_letters(),
    )  # fmt: skip
    tokenizer.train_from_iterator(_sentences(), trainer)
    return tokenizer


def _letters() -> list[str]:
    return sorted({*map(chr, range(32, 127)), "\n", "\t", "\u2581", "\u00e9", "\U0001f600"})


def _trained(tokenizer: Tokenizer) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=_letters(), show_progress=False,
        special_tokens=[*_tokens(), AddedToken("<unk>", special=True)],
    )  # fmt: skip
    tokenizer.train_from_iterator(_sentences(), trainer)
    return tokenizer


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "byte level": byte_level,
    "prefixed": prefixed,
    "unparted": unparted,
    "metaspace first": lambda: metaspace("first"),
    "metaspace always": lambda: metaspace("always"),
    "legacy": legacy,
    "unigram": unigram,
}


def form(folder: Path, tokenizer: Tokenizer, template: object, *, in_config: bool = False, **config: object) -> Path:
    """A folder of a tokenizer and a template."""
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        **config,
    }
    if in_config:
        said["chat_template"] = template
    else:
        (folder / "chat_template.jinja").write_text(str(template), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(said), "utf-8")
    return folder


def text_of(chat: Chat, token_ids: list[int]) -> str:
    """What tokens say, special ones too."""
    return chat.tokenizer.decode(token_ids, skip_special_tokens=False)
