"""Chat templates: a conversation becomes one text, as `transformers` renders it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Environment, Template, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node, Scope
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.errors import Refused


def template_of(folder: Path, config: Mapping[str, Any]) -> str:
    """The source of a folder's template: `chat_template.jinja`, or the key of `tokenizer_config.json`.

    Of several named ones it is `default`, which `transformers` takes where there are no tools.
    """
    file = folder / "chat_template.jinja"
    given = file.read_text("utf-8") if file.exists() else config.get("chat_template")
    if isinstance(given, list):
        named = {one.get("name"): one.get("template") for one in given if isinstance(one, Mapping)}
        if not isinstance(named.get("default"), str):
            raise Refused(
                f"{folder} has several chat templates ({', '.join(map(str, named))}) and none is called default. Write "
                f"the one that is meant into a chat_template.jinja beside its tokenizer.json."
            )
        given = named["default"]
    if not isinstance(given, str):
        raise Refused(
            f"{folder} has no chat template, so conversations cannot be rendered. Put a chat_template.jinja beside its "
            f"tokenizer.json."
        )
    return given


def compiled(folder: Path, source: str) -> Template:
    """A template, ready to render; refuses one that is none."""
    try:
        return _environment().from_string(source)
    except TemplateError as error:
        raise Refused(f"the chat template of {folder} is not one: {error}") from error


def rendered(
    folder: Path,
    template: Template,
    messages: Sequence[Mapping[str, str]],
    answer_next: bool,
    special: Mapping[str, str],
) -> str:
    """A conversation as one text; with `answer_next` it ends where the model's answer begins."""
    given = {"add_generation_prompt": answer_next, "tools": None, "documents": None, **special}
    try:
        return template.render(messages=list(messages), **given)
    # A template is a program of strangers, and may fail as any program may.
    except Exception as error:
        said = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
        raise Refused(f"the chat template of {folder} refuses a conversation: {said}") from error


class _Generation(Extension):
    """`{% generation %}` marks, for others, what a model is to learn; here it marks nothing."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        return Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _environment() -> Environment:
    extensions = [_Generation, loopcontrols]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    # The one clock a template may read; a fixed day keeps tokens from changing overnight.
    environment.globals["strftime_now"] = date(2024, 1, 1).strftime
    return environment


def _to_json(
    value: object, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
