"""Read: one number per answer, from a model that reads it.  Reads responses, writes scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.asking.read import read_all
from pipeline.contracts import RESPONSES, SCORES
from pipeline.core.methods import Use
from pipeline.core.run import How
from pipeline.core.stage import Input, StageParams, stage
from pipeline.kinds.backend import Reading, Tokens, Want
from pipeline.kinds.reader import Reader
from pipeline.model.chat import Chat
from pipeline.tables.parquet import Scan

COLUMNS = ["response_id", "prompt_id", "messages", "content", "inputs"]


class Params(StageParams):
    of: str
    model: str
    use: Use[Reader]

    def inputs(self) -> dict[str, Input]:
        return {"responses": Input(self.of, RESPONSES), "model": Input(f"models/{self.model}")}

    def output(self, instance: str) -> str:
        return f"scores/{self.of}/{instance}"

    def needs(self) -> dict[str, frozenset[str]]:
        needs = self.use.method.traits["needs"]
        return {self.model: frozenset({"read", *needs} if needs else {"form"})}


@stage(writes=SCORES, by="part", exactness="repeatable", imports=("torch", "transformers"), finds=("backend",))
def read(params: Params, responses: Scan, model: Path, how: How) -> Iterator[pa.RecordBatch]:
    """Every answer is rendered with the reading model's own template, without its thought; answers that failed get a
    null score.

    Equal conversations are read once.
    """
    chat, reader = Chat(model / "tokenizer"), params.use.build()
    rows = responses.pylist(COLUMNS)
    texts = {(r["prompt_id"], r["content"]): r for r in rows if r["content"]}
    asked = []
    for row in texts.values():
        rendered = chat.example(row["messages"], row["content"])
        positions = [t for s, e in rendered.spans for t in range(s, e)]
        asked.append(Tokens(row["response_id"], rendered.token_ids, positions, row["inputs"]))
    traits = params.use.method.traits
    if traits["needs"]:
        readings = read_all(model, asked, how, Want(embedding=traits.get("embedding", False)))
    else:
        readings = (Reading(tokens.id, np.full(len(tokens.positions), np.nan)) for tokens in asked)
    found = {reading.id: reader(reading) for reading in readings}
    nothing: dict[str, object] = {"score": None, "quantities": []}
    unread = [key for key, row in found.items() if not _finite(row)]
    if unread:
        how.say(
            f"{len(unread)} of {len(found)} texts have log-probabilities that are no numbers; their scores are null"
        )
        found |= {key: {**nothing, "detail": "the model's log-probabilities are no finite numbers"} for key in unread}
    yield SCORES.rows(
        {
            "response_id": row["response_id"],
            "prompt_id": row["prompt_id"],
            **(found[texts[row["prompt_id"], row["content"]]["response_id"]] if row["content"] else nothing),
        }
        for row in rows
    )


def _finite(row: Mapping[str, Any]) -> bool:
    """Whether a score, its quantities and its vector are finite numbers, as far as there are any."""
    numbers = [row["score"], *(value for _, value in row["quantities"]), *(row.get("vector") or ())]
    return all(number is None or math.isfinite(number) for number in numbers)
