"""Pictures that a model is shown beside words: as parts of a message to a server, as data beside tokens to vLLM."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.asking.ask import requests_for
from pipeline.backends import vllm
from pipeline.contracts import PROMPTS
from pipeline.errors import Refused
from pipeline.kinds.backend import GenerateRequest, Sampling
from pipeline.model.chat import Chat
from pipeline.tables import ids
from pipeline.tables.pictures import pixels
from pipeline.tables.tensors import cell
from tests.backends.test_http import asked, bodies, served_folder
from tests.servers import MODEL, Server, serving
from tests.tables.test_pictures import saved

PICTURES = [np.random.default_rng(i).integers(0, 256, (5, 7, 3)).astype(np.uint8) for i in range(2)]
SAMPLING = Sampling(0.0, 1.0, 8)
SHOWING = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{{ '#' if part.type == 'image' else part.text }}{% endfor %}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def about(words: str, inputs: dict[str, Any], name: str = "p") -> GenerateRequest:
    messages = [{"role": "system", "content": "look"}, {"role": "user", "content": words}]
    return GenerateRequest(f"{name}/0", name, messages, 0, 1, inputs=cell(inputs))


def file_of(part: dict[str, Any]) -> bytes:
    kind, data = part["image_url"]["url"].split(",")
    assert part["type"] == "image_url" and kind in ("data:image/png;base64", "data:image/jpeg;base64")
    return base64.b64decode(data)


def test_a_server_is_shown_pictures_before_the_words(server: Server) -> None:
    """Numbers as a PNG of the same numbers, a file as it is; in the order of their names."""
    jpeg = saved(PICTURES[1], kind="JPEG")
    [answer] = asked(server.url, [about("what is zebra?", {"b": jpeg, "a": PICTURES[0]})], SAMPLING)
    assert answer.content == "what is zebra? -> 1"
    [body] = bodies(server, "zebra")
    before, last = body["messages"]
    assert before == {"role": "system", "content": "look"}
    first, second, words = last["content"]
    np.testing.assert_array_equal(pixels(file_of(first)), PICTURES[0])
    assert file_of(second) == jpeg and words == {"type": "text", "text": "what is zebra?"}


def test_a_picture_without_words_is_all_that_is_shown(server: Server) -> None:
    asked(server.url, [about("", {"unworded": PICTURES[0][:, :, :1]})], SAMPLING, card={"model": MODEL})
    [body] = [b for b in server.stats()["bodies"] if b["messages"][-1]["role"] == "user" and not b.get("n")][-1:]
    [only] = body["messages"][-1]["content"]
    np.testing.assert_array_equal(pixels(file_of(only)), PICTURES[0][:, :, :1])


@pytest.mark.parametrize(("inputs", "card", "said"), [
    ({"x": np.ones((4, 2), np.float32)}, {}, r"prompt p is about 'x', float32 of \[4, 2\], and only pictures can be"),
    ({"x": np.ones((4, 2, 4), np.uint8)}, {}, r"uint8 of \[4, 2, 4\], and only pictures"),
    ({"x": b"\x89PNG\r\n\x1a\nbroken"}, {}, r"prompt p is no picture that can be read"),
    ({"image": PICTURES[0]}, {"api": "completions"}, "in words alone: write `api: chat` into acquire.teacher"),
])  # fmt: skip
def test_what_a_server_cannot_be_shown_is_refused(
    inputs: dict,
    card: dict,
    said: str,
    server: Server,
    tmp_path: Path,
) -> None:
    folder = served_folder(tmp_path / "teacher")
    with pytest.raises(Refused, match=said):
        asked(server.url, [about("hm", inputs)], SAMPLING, card=card, folder=folder)


def test_a_request_is_one_about_its_picture(tmp_path: Path) -> None:
    """Equal words about other pictures are other requests to the memo, equal ones about an equal picture are one."""
    (tmp_path / "model.json").write_text(json.dumps({"backend": "http.openai", "model_id": "m", "api": "chat"}))
    messages = [{"role": "user", "content": "what?"}]
    rows = [
        {"prompt_id": ids.prompt_id(messages, given), "messages": messages, "domain": "d", "source": "s", "group": "g",
         "inputs": given}
        for given in (cell({"image": p}) for p in (PICTURES[0], PICTURES[1], PICTURES[0].copy()))
    ]  # fmt: skip
    pool = pa.Table.from_batches([PROMPTS.rows(rows)])
    keys = [request.request_id for request in requests_for(pool, tmp_path, SAMPLING, 1, 0)]
    assert keys[0] == keys[2] != keys[1]


def showing(folder: Path, template: str = SHOWING) -> Chat:
    (served_folder(folder) / "tokenizer" / "chat_template.jinja").write_text(template)
    return Chat(folder / "tokenizer")


def test_a_template_says_where_a_picture_stands(tmp_path: Path) -> None:
    chat = showing(tmp_path)
    messages = [{"role": "system", "content": "look"}, {"role": "user", "content": "a?"}]
    assert chat.prompt(messages, 2) == [ord(c) for c in "look##a?"]


@pytest.mark.parametrize("template", [
    "{{ messages[-1]['content'] }}",
    "{% for m in messages %}{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}{% endfor %}",
    "{% for m in messages %}{{ m.content if m.content is string else m.content[-1].text }}{% endfor %}",
])  # fmt: skip
def test_a_template_that_shows_no_picture_is_refused(template: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="shows no pictures; ask a model that is made for them"):
        showing(tmp_path, template).prompt([{"role": "user", "content": "a?"}], 1)


def handed_over(wanted: Sequence[GenerateRequest], folder: Path) -> list[tuple[Any, Any]]:
    """The tokens and pictures that an engine is given; vLLM itself is not needed to see them."""
    model = vllm.VllmModel.__new__(vllm.VllmModel)
    model.chat, model.context, model.limit = showing(folder), 99, 99
    jobs: Iterator[Any] = model._jobs_of(wanted, SAMPLING)
    return [(job.token_ids, job.pictures) for job in jobs]


def test_vllm_is_shown_pictures_beside_the_tokens(tmp_path: Path) -> None:
    plain = GenerateRequest("q/0", "q", [{"role": "user", "content": "b?"}], 0, 1)
    wanted = [about("a?", {"image": PICTURES[0]}), plain, about("a?", {"image": saved(PICTURES[1][:, :, 0])}, "r")]
    first, second, third = handed_over(wanted, tmp_path)
    assert first[0] == third[0] == [ord(c) for c in "look#a?"]
    assert second == ([ord("b"), ord("?")], [])
    [shown], [grey] = first[1], third[1]
    np.testing.assert_array_equal(shown, PICTURES[0])
    np.testing.assert_array_equal(grey, np.repeat(PICTURES[1][:, :, :1], 3, 2))


def test_vllm_is_shown_no_graph(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"prompt p is about 'x', float32"):
        handed_over([about("a?", {"x": np.ones((4, 2), np.float32)})], tmp_path)
