"""Generate: who answered stands in every row."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.contracts import DROPS, PROMPTS
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.scorers.consistency import agreement
from pipeline.stages.generate import Params, generate
from pipeline.tables import ids, parquet
from pipeline.tables.parquet import Scan

QUESTION = [{"role": "user", "content": "add 001 002"}]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One prompt with a worked solution, and a model that answers with it."""
    prompt = {
        "prompt_id": ids.prompt_id(QUESTION), "messages": QUESTION, "domain": "add", "source": "test", "group": "g",
        "level": 0, "verifier": "text.marked", "reference": "3", "solution": "1+2#3",
    }  # fmt: skip
    parquet.write(PROMPTS, tmp_path / "prompts", 1, [PROMPTS.rows([prompt])])
    parquet.write(DROPS, tmp_path / "drops", 1, [])
    (tmp_path / "model").mkdir()
    card = {"backend": "recorded.solutions", "model_id": "recorded.solutions"}
    (tmp_path / "model" / "model.json").write_text(json.dumps(card), "utf-8")
    return tmp_path


def answers(data: Path, entry: str, temperature: float, k: int) -> list[dict]:
    """The rows that the entry of generate gives."""
    params = Params(pool="train", model="model", k=k, temperature=temperature, seed=1)
    prompts, drops = Scan(PROMPTS, (data / "prompts",), 0), Scan(DROPS, (data / "drops",), 0)
    how = How(RunSettings(), data, entry)
    [batch] = generate.function(params, prompts, drops, data / "model", how, entry)
    return batch.to_pylist()


def test_two_entries_that_ask_one_model_are_told_apart(data: Path) -> None:
    loose, greedy = answers(data, "loose", 1.0, k=3), answers(data, "greedy", 0.0, k=1)
    assert {row["entry"] for row in loose} == {"loose"}
    assert {row["entry"] for row in greedy} == {"greedy"}
    columns = {name: [row[name] for row in loose + greedy] for name in ("prompt_id", "entry", "answer")}
    votes = agreement()(pa.table(columns))["quantities"].to_pylist()
    assert [dict(quantities)["samples"] for quantities in votes] == [3, 3, 3, 1]
