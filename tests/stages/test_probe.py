"""A teacher on a server is probed by token ids, read a second time there, and never given a text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.contracts import EXAMPLES, SIGNALS
from pipeline.core.driver import run_instance
from pipeline.core.settings import Endpoint, RunSettings
from pipeline.core.stage import Instance, stage_named
from pipeline.model.chat import Chat
from pipeline.tables import ids, manifest, parquet
from pipeline.tables.parquet import Scan
from tests.servers import MODEL, Server, logprob, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def run(data: Path, server: Server, stage: str, name: str, given: dict, **inputs: tuple[str, ...]) -> Path:
    params = stage_named(stage).params.model_validate(given)
    instance = Instance(stage, name, params, inputs, params.output(name), "code")
    endpoints = {"teacher": Endpoint(url=server.url, retries=0)}
    run_instance(instance, RunSettings(endpoints=endpoints), data, data.parent)
    return data / instance.output


def test_a_served_teacher_reads_tokens(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    data = tmp_path / "data"
    served = {"use": "remote.endpoint", "model": MODEL, "version": "1", "read": True, "tokenizer": "data/embedded/base"}
    run(data, server, "acquire", "teacher", served)
    chat = Chat(data / "models/teacher/tokenizer")
    rows = []
    for i in range(70):
        rendered = chat.example([{"role": "user", "content": f"add {i:03d} 001"}], f"{i + 1}")
        spans = [{"start": start, "end": end} for start, end in rendered.spans]
        rows.append({
            "example_id": ids.digest("example", i), "prompt_id": ids.digest("prompt", i), "domain": "add",
            "token_ids": rendered.token_ids, "spans": spans, "weight": 1.0,
            "template_hash": chat.template_hash, "tokenizer_hash": chat.tokenizer_hash, "response_ids": ["r"],
        })  # fmt: skip
    parquet.write(EXAMPLES, data / "examples/some", 2, [EXAMPLES.rows(rows)])
    given = {"of": "some", "model": "teacher", "top_k": 4}
    folder = run(data, server, "probe", "teacher", given, examples=("examples/some",), model=("models/teacher",))
    asked = [body["prompt"] for body in server.stats()["bodies"]]
    # Every row once, and SECOND of them a second time.
    assert len(asked) == 70 + 64 and {tuple(p) for p in asked} == {tuple(row["token_ids"]) for row in rows}
    assert all(isinstance(token, int) for prompt in asked for token in prompt)
    for row in Scan(SIGNALS, (folder,)).pylist():
        [span] = row["spans"]
        targets = row["token_ids"][span["start"] : span["end"]]
        assert row["topk_ids"] == [[0, 1, 2, 3]] * len(targets) and row["teacher_id"] == f"{MODEL}@1"
        np.testing.assert_allclose(row["target_logprob"], [logprob(t) for t in targets], rtol=1e-6)
        np.testing.assert_allclose(row["tail_mass"], 1 / 16, rtol=1e-6)
    said = manifest.read(folder)
    assert said is not None and said.again is not None and said.dtype is None
    assert (said.again.rows, said.again.dtype, said.again.distance, said.again.target) == (64, None, 0.0, 0.0)
