"""A template is rendered as `transformers` renders it, and one that cannot be is refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Refused
from pipeline.model.chat import Chat
from tests.model.forms import CHATML, GENERATION, JSON, byte_level, form

USER = {"role": "user", "content": 'What is 2 + 2? "caf\u00e9" <b>'}
CONVERSATIONS = [
    [USER],
    [USER, {"role": "assistant", "content": "Four."}],
    [{"role": "system", "content": "Be brief."}, USER, {"role": "assistant", "content": "4"}, USER],
]
# What templates say that others in this folder do not.
TAKEN = {
    "generation": GENERATION,
    "a variable set in generation": (
        "{% set x = 'out' %}{% for m in messages %}{% generation %}{% set x = 'in' %}{{ x + m.content }}"
        "{% endgeneration %}{{ x }}{% endfor %}"
    ),
    "generation within a loop that breaks": (
        "{% for m in messages %}{% generation %}{{ m.content }}{{ loop.index }}{% endgeneration %}"
        "{% if loop.index == 2 %}{% break %}{% endif %}{% endfor %}"
    ),
    "generation in a macro": (
        "{% macro say(m) %}{% generation %}{{ m.content }}{% endgeneration %}{% endmacro %}"
        "{% for m in messages %}{{ say(m) }}{% endfor %}"
    ),
    "nested generation": (
        "{% for m in messages %}{% generation %}a{% generation %}{{ m.role }}{% endgeneration %}{% endgeneration %}"
        "{% endfor %}"
    ),
    "trimmed generation": (
        "{% for m in messages %}\n  {%- generation -%}  {{ m.role }}  {%- endgeneration -%}\n{% endfor %}"
    ),
    "tojson without ascii": JSON,
    "tojson": "{{ messages | tojson }}",
    "tojson with ascii": "{{ messages | tojson(ensure_ascii=True) }}",
    "tojson with an indent": "{{ messages | tojson(indent=2) }}",
    "tojson with separators": "{{ messages | tojson(separators=(',', ':')) }}",
    "tojson with sorted keys": "{{ messages | tojson(sort_keys=True) }}",
    "tojson by place": "{{ messages | tojson(False, 4) }}",
    "tools that are asked for": "{% if tools is not none %}{{ tools | tojson }}{% endif %}{{ messages[0].content }}",
    "tools that may be defined": "{% if not tools is defined %}{% set tools = none %}{% endif %}{{ tools is none }}",
    "tools and documents as a truth": "{{ 'a' if tools else 'b' }}{{ 'c' if documents else 'd' }}",
    "names that nobody gives": "{{ custom_tools }}{{ enable_thinking is defined }}{{ messages[0].name }}",
    "namespaces": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "methods of texts": "{{ messages[0].content.strip().split(' ')[-1].upper() }}{{ messages[::-1][0]['role'] }}",
    "special tokens": "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ pad_token }}{{ additional_special_tokens }}",
    "a line that trims": "a\n{%- if true %}\n  b\n{%- endif %}\n    {% for m in messages %}\n x\n    {% endfor %}",
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_transformers_takes_is_taken(tmp_path: Path, name: str) -> None:
    from transformers import AutoTokenizer

    folder = form(tmp_path / "form", byte_level(), TAKEN[name])
    ours, theirs = Chat(folder), AutoTokenizer.from_pretrained(folder)
    for messages in CONVERSATIONS:
        for answer_next in (True, False):
            wanted = theirs.apply_chat_template(messages, add_generation_prompt=answer_next, tokenize=False)
            assert ours.text(messages, answer_next=answer_next) == wanted


NAMED = {"default": CHATML, "tool_use": "{{ tools | length }}", "rag": "{{ documents[0] }}"}


@pytest.mark.parametrize("names", [("default",), ("default", "tool_use"), ("tool_use", "default", "rag")])
def test_of_several_templates_the_default_is_taken(tmp_path: Path, names: tuple[str, ...]) -> None:
    from transformers import AutoTokenizer

    listed = [{"name": name, "template": NAMED[name]} for name in names]
    folder = form(tmp_path / "form", byte_level(), listed, in_config=True)
    ours, theirs = Chat(folder), AutoTokenizer.from_pretrained(folder)
    for messages in CONVERSATIONS:
        wanted = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert ours.prompt(messages) == wanted
    assert ours.template_hash == Chat(form(tmp_path / "one", byte_level(), CHATML)).template_hash


@pytest.mark.parametrize(
    ("config", "older"),
    [
        ({}, {"eos_token": "<|im_end|>"}),
        ({"eos_token": "<unk>"}, {"eos_token": "<|im_end|>"}),
        ({"bos_token": "<unk>"}, {"eos_token": "<|im_end|>", "bos_token": "<s>"}),
        ({"eos_token": {"content": "<|im_end|>", "__type": "AddedToken"}}, {}),
        ({}, {"eos_token": {"content": "<|im_end|>", "lstrip": False, "normalized": False}}),
        ({"eos_token": "<|im_end|>", "added_tokens_decoder": {}}, {"eos_token": "<unk>"}),
        ({"eos_token": "<|im_end|>"}, {"pad_token": "<unk>", "additional_special_tokens": ["<s>"]}),
    ],
)
def test_special_tokens_are_named_where_transformers_finds_them(tmp_path: Path, config: dict, older: dict) -> None:
    from transformers import AutoTokenizer

    folder = form(tmp_path / "form", byte_level(), "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **config}))
    (folder / "special_tokens_map.json").write_text(json.dumps(older), "utf-8")
    ours, theirs = Chat(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.eos_id == theirs.eos_token_id == ours.tokenizer.token_to_id("<|im_end|>")
    assert ours.text([USER], answer_next=True) == theirs.apply_chat_template([USER], tokenize=False)


def test_the_clock_of_a_template_stands_still(tmp_path: Path) -> None:
    for number, (asked, said) in enumerate({"%d %b %Y": "01 Jan 2024", "%Y-%m-%d": "2024-01-01", "%H": "00"}.items()):
        chat = Chat(form(tmp_path / str(number), byte_level(), f"{{{{ strftime_now('{asked}') }}}}"))
        assert chat.text([USER], answer_next=True) == said


REFUSED: dict[str, tuple[Any, str]] = {
    "no default": ([{"name": "tool_use", "template": "x"}, {"name": "rag", "template": "y"}], "tool_use, rag"),
    "a list of nothing": ([], "none is called default"),
    "a default that is none": ([{"name": "default"}], "none is called default"),
    "a list of texts": (["a", "b"], "none is called default"),
    "a number": (3, "has no chat template"),
    "nothing": (None, "has no chat template"),
    "an unknown tag": ("{% tools %}", "is not one: Encountered unknown tag 'tools'"),
    "generation without an end": ("{% generation %}a", "is not one: .*endgeneration"),
    "an unknown filter": ("{{ messages | shout }}", "is not one: No filter named 'shout'"),
    "a sum of a text and nothing": ("{{ 'a' + messages[0].nothing }}", "refuses a conversation: "),
    "a text and a number": ("{{ messages[0].content + 3 }}", "refuses a conversation: TypeError"),
    "a division by nothing": ("{{ 1 / 0 }}", "refuses a conversation: ZeroDivisionError"),
    "a place that is not there": ("{{ 'abc'.index('d') }}", "refuses a conversation: ValueError"),
    "a call of nothing": ("{{ messages.nothing() }}", "refuses a conversation: "),
    "a bad json argument": ("{{ messages | tojson(spaces=2) }}", "refuses a conversation: TypeError"),
    "a range without an end": ("{% for i in range(99999999) %}{% endfor %}", "refuses a conversation: OverflowError"),
    "itself again and again": ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "refuses a conversation: Recursion"),
    "what it says itself": ("{{ raise_exception('system comes first') }}", "system comes first$"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    template, why = REFUSED[name]
    folder = form(tmp_path / "form", byte_level(), template, in_config=True)
    with pytest.raises(Refused, match=why) as refused:
        Chat(folder).prompt([USER])
    assert str(folder) in str(refused.value)
