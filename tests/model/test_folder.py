"""A model folder: what is refused before anything runs, and what its form is."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from pipeline.commands.doctor import _weights
from pipeline.core.methods import find
from pipeline.errors import Refused
from pipeline.model.chat import Chat
from pipeline.model.folder import CAUSAL, check_tokens, context_of, finish, hashes, network_of
from pipeline.origins.local import folder

ROOT = Path(__file__).parents[2]


def brought(place: Path, *tokens: str) -> Path:
    """The shipped base student with more tokens in its tokenizer, as if chat tokens were added and nothing resized."""
    shutil.copytree(ROOT / "data" / "embedded" / "base", place)
    file = place / "tokenizer.json"
    content = json.loads(file.read_text("utf-8"))
    first = 1 + max(content["model"]["vocab"].values())
    for number, token in enumerate(tokens, first):
        content["model"]["vocab"][token] = number
    file.write_text(json.dumps(content), "utf-8")
    return place


def test_a_token_beyond_the_embedding_is_refused_by_acquire_and_doctor(tmp_path: Path) -> None:
    rows = json.loads((ROOT / "data/embedded/base/config.json").read_text("utf-8"))["vocab_size"]
    known = Chat(ROOT / "data/embedded/base").tokenizer.get_vocab_size()
    place = brought(tmp_path / "own", *(f"<|new{i}|>" for i in range(rows - known + 1)))
    (tmp_path / "out").mkdir()
    words = rf"token '<\|new\d+\|>' with the id {rows}, and its embedding has {rows} rows. Resize it"
    with pytest.raises(Refused, match=words):
        folder(path=str(place))(tmp_path / "out")
    with pytest.raises(Refused, match=words):
        _weights("acquire@own", place, "correct `path`", reads=True)


def changed(place: Path, rows: int | None, nested: bool, **token: object) -> Path:
    """The shipped base student with another number of rows in its config, and one more added token."""
    shutil.copytree(ROOT / "data" / "embedded" / "base", place)
    config = json.loads((place / "config.json").read_text("utf-8"))
    known = config.pop("vocab_size")
    told = {"vocab_size": known if rows is None else rows}
    config |= {"text_config": told} if nested else told
    (place / "config.json").write_text(json.dumps(config), "utf-8")
    if token:
        content = json.loads((place / "tokenizer.json").read_text("utf-8"))
        content["added_tokens"].append({**content["added_tokens"][0], **token})
        (place / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    return place


CHAT = {"id": 64, "content": "<|chat|>"}


@pytest.mark.parametrize(
    ("rows", "nested", "token", "names"),
    [
        (None, False, CHAT, "<|chat|>"),
        (None, False, {**CHAT, "special": False}, "<|chat|>"),
        (None, False, {**CHAT, "normalized": True}, "<|chat|>"),
        (None, False, {**CHAT, "content": "word"}, "word"),
        (None, True, CHAT, "<|chat|>"),
        (62, False, {}, "F"),
        (63, False, {}, "F"),
        (63, True, {}, "F"),
        (1, False, {}, "F"),
        (63, False, CHAT, "<|chat|>"),
        (64, False, {}, None),
        (65, False, CHAT, None),
        (128, False, CHAT, None),
        (64, True, {}, None),
        (None, False, {"id": 10, "content": "."}, None),
    ],
)
def test_a_token_beyond_the_rows_is_refused_however_it_came(
    tmp_path: Path, rows: int | None, nested: bool, token: dict, names: str | None
) -> None:
    place = changed(tmp_path / "own", rows, nested, **token)
    if names is None:
        check_tokens(place)
        return
    with pytest.raises(Refused, match=rf"token {re.escape(repr(names))} with the id .* and its embedding has"):
        check_tokens(place)
    (tmp_path / "out").mkdir()
    with pytest.raises(Refused, match=r"Resize it"):
        folder(path=str(place))(tmp_path / "out")


def test_as_many_tokens_as_rows_are_fine(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "data" / "embedded" / "base", tmp_path / "own")
    finish(tmp_path / "own", "float32")


def test_a_form_tells_its_network_and_its_hashes(tmp_path: Path) -> None:
    make = find("origin", "text.bert").factory
    shape = {"alphabet": "abcd", "width": 8, "layers": 1, "heads": 1, "context": 16, "seed": 1}
    forms = []
    for names in (("a", "b"), ("b", "a")):
        out = tmp_path / "".join(names)
        out.mkdir()
        card = make(outcomes=names, **shape)(out)
        assert card["backend"] == "network.local"
        forms.append(out / "tokenizer")
    assert [network_of(form) for form in forms] == ["classifier.text"] * 2
    assert hashes(forms[0])[1] != hashes(forms[1])[1], "the same columns under other names are another form"
    base = ROOT / "data" / "embedded" / "base"
    assert network_of(base) == CAUSAL and hashes(base) == (Chat(base).template_hash, Chat(base).tokenizer_hash)


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"n_positions": 96}, 96),
        ({"max_position_embeddings": 64}, 64),
        ({"text_config": {"max_position_embeddings": 32}}, 32),
        ({"max_position_embeddings": 11, "run": 3}, 31),  # a first place, and ten words of three characters
        ({"widths": [8]}, None),
    ],
)
def test_a_context_is_what_a_model_says(tmp_path: Path, config: dict[str, object], context: int | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    assert context_of(tmp_path) == context
