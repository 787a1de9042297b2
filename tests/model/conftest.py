"""Every tokenizer with every template."""

from __future__ import annotations

import pytest

from pipeline.model.chat import Chat
from tests.model.forms import EMBEDDED, TEMPLATES, TOKENIZERS, form


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Chat]:
    """A form of every tokenizer with every template, and the shipped one."""
    place, found = tmp_path_factory.mktemp("forms"), {("embedded", "embedded"): Chat(EMBEDDED)}
    for name, make in TOKENIZERS.items():
        tokenizer = make()
        for shape, template in TEMPLATES.items():
            found[name, shape] = Chat(form(place / name / shape, tokenizer, template))
    return found
