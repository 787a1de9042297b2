"""Probe: the teacher's distribution at each loss token.  Reads examples, writes signals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import PositiveInt

from pipeline.asking.read import read_all
from pipeline.contracts import EXAMPLES, SIGNALS
from pipeline.core.run import How
from pipeline.core.stage import Input, StageParams, stage
from pipeline.errors import Refused
from pipeline.kinds.backend import Reading, Tokens, Want, card_of
from pipeline.model.folder import hashes
from pipeline.tables.lists import inside, joined, nested, split, whole
from pipeline.tables.parquet import Scan
from pipeline.tables.tensors import arrays, cell

# What a model says of each place, as columns of the table and fields of a reading.
NUMBERS = ("topk_logprobs", "tail_mass", "target_logprob")


class Params(StageParams):
    of: str
    model: str
    top_k: PositiveInt
    taps: tuple[str, ...] = ()

    def inputs(self) -> dict[str, Input]:
        return {"examples": Input(f"examples/{self.of}", EXAMPLES), "model": Input(f"models/{self.model}")}

    def output(self, instance: str) -> str:
        return f"signals/{self.of}/{instance}"

    def needs(self) -> dict[str, frozenset[str]]:
        return {self.model: self.want().needs()}

    def want(self) -> Want:
        """What is asked of the model at each place."""
        return Want(top_k=self.top_k, taps=self.taps)


@stage(writes=SIGNALS, by="part", exactness="repeatable", imports=("torch", "transformers"), finds=("backend",))
def probe(params: Params, examples: Scan, model: Path, how: How) -> Iterator[pa.RecordBatch]:
    """The K likeliest outcomes at each place, their log-probabilities and the mass of all others, at temperature 1; and
    by tap what else the model computes there."""
    rows = examples.read()
    if not len(rows):
        return
    known = hashes(model / "tokenizer")[1]
    strange = next((h for h in rows["tokenizer_hash"].unique().to_pylist() if h != known), None)
    if strange is not None:
        raise Refused(
            f"examples/{params.of} was cut with tokenizer {strange[:8]} and the model {params.model} reads tokenizer "
            f"{known[:8]}: its distribution would be over other tokens. A logit objective needs a teacher and a "
            f"student of one vocabulary; train this student with supervised.cross_entropy instead."
        )
    asked = tokens_of(rows)
    found = {reading.id: reading for reading in read_all(model, asked, how, params.want())}
    readings: list[Any] = [found[tokens.id] for tokens in asked]
    count = len(asked)
    unread = sum(not all(np.isfinite(getattr(r, name)).all() for name in NUMBERS) for r in readings)
    if unread:
        how.say(f"{unread} of {count} examples have log-probabilities that are no numbers; these are stored as null")
    signals = {
        "teacher_id": [card_of(model)["model_id"]] * count,
        "topk_ids": nested([r.topk_ids for r in readings], pa.int32()),
        "topk_logprobs": nested([r.topk_logprobs for r in readings], pa.float32()),
        "tail_mass": joined([r.tail_mass for r in readings], pa.float32()),
        "target_logprob": joined([r.target_logprob for r in readings], pa.float32()),
        "temperature": [1.0] * count,
        "features": [cell(r.features) if r.features else None for r in readings],
    }
    yield SIGNALS.batch(**{name: rows[name] for name in rows.column_names}, **signals)


def tokens_of(rows: pa.Table) -> list[Tokens]:
    """What is read of each example: its tokens, and the places that are trained on."""
    tokens = split(whole(rows, "token_ids"))
    at_BT = inside(whole(rows, "spans"), max(map(len, tokens)))
    given = zip(rows["example_id"].to_pylist(), tokens, at_BT, rows["inputs"].to_pylist(), strict=True)
    return [Tokens(name, ids, np.flatnonzero(at_T), cell) for name, ids, at_T, cell in given]


def recorded(signals: pa.Table) -> Iterator[tuple[Tokens, Reading]]:
    """What a model said of each example, as a table of signals has it: for the memo, which then need not ask again."""
    if not len(signals):
        return
    columns = {name: signals[name].to_pylist() for name in ("topk_ids", *NUMBERS)}
    for i, (tokens, features) in enumerate(zip(tokens_of(signals), signals["features"].to_pylist(), strict=True)):
        given = {n: np.array(rows[i], np.float32 if n in NUMBERS else np.int32) for n, rows in columns.items()}
        taps = {name: np.asarray(array) for name, array in arrays(features or []).items()}
        yield tokens, Reading(tokens.id, features=taps, **given)
