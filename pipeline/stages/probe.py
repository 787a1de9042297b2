"""Probe: the teacher's distribution at each loss token.  Reads examples, writes signals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pydantic import PositiveInt

from pipeline.asking.read import read_all
from pipeline.contracts import EXAMPLES, SIGNALS
from pipeline.core.run import How
from pipeline.core.stage import Input, StageParams, stage
from pipeline.errors import Refused
from pipeline.kinds.backend import Tokens, Want, card_of
from pipeline.model.chat import Chat
from pipeline.tables.parquet import Scan

ASKED = ("topk_ids", "topk_logprobs", "tail_mass", "target_logprob")


class Params(StageParams):
    of: str
    model: str
    top_k: PositiveInt

    def inputs(self) -> dict[str, Input]:
        return {"examples": Input(f"examples/{self.of}", EXAMPLES), "model": Input(f"models/{self.model}")}

    def output(self, instance: str) -> str:
        return f"signals/{self.of}/{instance}"

    def needs(self) -> dict[str, frozenset[str]]:
        return {self.model: frozenset({"read", "topk_logprobs"})}


def positions(spans: list[dict[str, int]]) -> list[int]:
    """The loss positions of an example, in order."""
    return [t for span in spans for t in range(span["start"], span["end"])]


@stage(writes=SIGNALS, by="part", exactness="repeatable", imports=("torch", "transformers"), finds=("backend",))
def probe(params: Params, examples: Scan, model: Path, how: How) -> Iterator[pa.RecordBatch]:
    """The K likeliest tokens, their log-probabilities and the mass of all others, at temperature 1."""
    rows = {row["example_id"]: row for row in examples.pylist()}
    if not rows:
        return
    known = Chat(model / "tokenizer").tokenizer_hash
    strange = next((r for r in rows.values() if r["tokenizer_hash"] != known), None)
    if strange is not None:
        raise Refused(
            f"examples/{params.of} was cut with tokenizer {strange['tokenizer_hash'][:8]} and the model {params.model} "
            f"reads tokenizer {known[:8]}: its distribution would be over other tokens. A logit objective needs a "
            f"teacher and a student of one vocabulary; train this student with supervised.cross_entropy instead."
        )
    asked = [Tokens(key, row["token_ids"], positions(row["spans"]), row["inputs"]) for key, row in rows.items()]
    teacher_id = card_of(model)["model_id"]
    for reading in read_all(model, asked, how, Want(top_k=params.top_k)):
        rows[reading.id].update(
            teacher_id=teacher_id,
            **{name: getattr(reading, name).tolist() for name in ASKED},
            temperature=1.0,
        )
    yield SIGNALS.rows(rows.values())
