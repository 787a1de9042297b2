"""Conversations to tokens: the chat template, the tokens, and which of them are trained on.

Uses `tokenizers` and `jinja2` alone, so that packing never loads torch. The rendering follows the templates of
`transformers` and is tested against it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from pipeline.errors import Refused
from pipeline.tables import ids

Messages = Sequence[dict[str, str]]
FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Rendered:
    """A conversation in tokens; `spans` are the half-open ranges of positions to be trained on."""

    token_ids: list[int]
    spans: list[tuple[int, int]]


class Chat:
    """The tokenizer and chat template of one folder (`data/models/<name>/tokenizer`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        missing = [name for name in FILES if not (folder / name).exists()]
        if missing:
            raise Refused(
                f"{folder} has no {' and no '.join(missing)}. A model folder needs a fast tokenizer: save it with "
                f"`AutoTokenizer.from_pretrained(...).save_pretrained(...)` into the same folder."
            )
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.config: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))

    @cached_property
    def template_text(self) -> str:
        """The template's source: `chat_template.jinja`, or the key of `tokenizer_config.json`."""
        file = self.folder / "chat_template.jinja"
        text = file.read_text("utf-8") if file.exists() else self.config.get("chat_template")
        if not isinstance(text, str):
            raise Refused(
                f"{self.folder} has no chat template, so conversations cannot be rendered. Put a "
                f"chat_template.jinja beside its tokenizer.json."
            )
        return text

    @cached_property
    def _template(self) -> Any:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = lambda value, **kw: json.dumps(value, ensure_ascii=False, **kw)
        environment.globals["raise_exception"] = _raise
        # The one clock a template may read; a fixed day keeps tokens from changing overnight.
        environment.globals["strftime_now"] = date(2024, 1, 1).strftime
        return environment.from_string(self.template_text)

    @cached_property
    def special(self) -> dict[str, str]:
        """bos_token, eos_token, ... as text."""
        return {
            key: value["content"] if isinstance(value, dict) else value
            for key, value in self.config.items()
            if key.endswith("_token") and isinstance(value, str | dict)
        }

    @cached_property
    def eos_id(self) -> int:
        """Id of the token that ends an answer."""
        found = self.tokenizer.token_to_id(self.special.get("eos_token", ""))
        if found is None:
            raise Refused(f"{self.folder}/tokenizer_config.json names no eos_token that its tokenizer knows")
        return found

    @cached_property
    def tokenizer_hash(self) -> str:
        return ids.digest("tokenizer", json.loads(self.tokenizer.to_str()))

    @cached_property
    def template_hash(self) -> str:
        return ids.digest("template", self.template_text, self.special)

    def text(self, messages: Messages, *, answer_next: bool) -> str:
        """The conversation as one text; with `answer_next` it ends where the model's answer begins."""
        try:
            return self._template.render(
                messages=list(messages), add_generation_prompt=answer_next, tools=None, documents=None, **self.special
            )
        except TemplateError as error:
            raise Refused(f"the chat template of {self.folder} refuses a conversation: {error}") from error

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=True)

    def prompt(self, messages: Messages) -> list[int]:
        """Token ids [T] of a conversation that the model is to answer."""
        return self.encode(self.text(messages, answer_next=True))

    def example(self, messages: Messages, answer: str) -> Rendered:
        """A conversation with its answer; the answer and its end token are trained on, and nothing else."""
        before = self.text(messages, answer_next=True)
        whole = self.text([*messages, {"role": "assistant", "content": answer}], answer_next=False)
        if not whole.startswith(before):
            raise Refused(
                f"the chat template of {self.folder} renders an answered conversation that does not begin with the "
                f"unanswered one, so it is not clear which tokens to train on. Use a template whose generation prompt "
                f"is a prefix of the assistant's turn."
            )
        encoded = self.tokenizer.encode(whole, add_special_tokens=False)
        start = next((i for i, (_, end) in enumerate(encoded.offsets) if end > len(before)), len(encoded.ids))
        try:
            end = encoded.ids.index(self.eos_id, start) + 1
        except ValueError as error:
            raise Refused(
                f"the chat template of {self.folder} does not end an answer with {self.special.get('eos_token')!r}; "
                f"a student trained on it would never stop"
            ) from error
        return Rendered(encoded.ids, [(start, end)])


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
