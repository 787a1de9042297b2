"""Read: one number per answer, from a model that reads it.  Reads responses, writes scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.asking.read import read_all
from pipeline.contracts import RESPONSES, SCORES
from pipeline.core import graph
from pipeline.core.methods import Use, find
from pipeline.core.run import How
from pipeline.core.stage import Input, Plan, StageParams, stage
from pipeline.errors import Refused
from pipeline.kinds.backend import Reading, Tokens, Want
from pipeline.kinds.reader import Reader, want_of
from pipeline.model.folder import network_of
from pipeline.tables.parquet import Scan

COLUMNS = ["response_id", "prompt_id", "messages", "content", "inputs"]
NOTHING: Mapping[str, Any] = {"score": None, "quantities": []}
UNKNOWN = {**NOTHING, "detail": "the answer is none of the model's outcomes"}


class Params(StageParams):
    of: str
    model: str
    use: Use[Reader]
    target: str | None = None

    def inputs(self) -> dict[str, Input]:
        return {"responses": Input(self.of, RESPONSES), "model": Input(f"models/{self.model}")}

    def output(self, instance: str) -> str:
        return f"scores/{self.of}/{instance}"

    def needs(self) -> dict[str, frozenset[str]]:
        want = self.want()
        return {self.model: frozenset({"form"} if want is None else want.needs())}

    def want(self) -> Want | None:
        """What is asked of the model for each answer, but for the target; None if nothing."""
        return want_of(self.use.method, self.use.arguments)

    def check(self, plan: Plan) -> list[str]:
        """A target is a table in `of`, so that what changes it runs the stage again; for readers that look at one."""
        want = self.want()
        if want is None or want.descent is None:
            return [] if self.target is None else [f"target: {self.use.name} looks at none; leave it out"]
        tables = [i.output for i in plan.of("generate") if graph.inside(i.output, self.of)]
        if self.target in tables:
            return []
        return [f"target: {self.use.name} needs one of the tables of answers in {self.of}: {', '.join(tables)}"]


@stage(
    writes=SCORES, by="part", exactness="repeatable", imports=("torch", "transformers"), finds=("backend", "network")
)
def read(params: Params, responses: Scan, model: Path, data: Path, name: str, how: How) -> Iterator[pa.RecordBatch]:
    """Every answer is rendered with the reading model's own template, without its thought; answers that failed, and
    those that are no outcome of a classifier, get a null score.

    Equal conversations are read once.
    """
    form, reader, want = model / "tokenizer", params.use.build(), params.want()
    rows = responses.pylist(COLUMNS)
    texts = {(r["prompt_id"], r["content"]): r for r in rows if r["content"]}
    asked = tokens_of(form, list(texts.values()))
    if want is not None and want.descent is not None and params.target is not None:
        answers = Scan(RESPONSES, (data / params.target,)).pylist(COLUMNS)
        target = tuple(tokens_of(form, [row for row in answers if row["content"]]))
        if not target:
            raise Refused(f"read.{name}.target: {params.target} has no answers to look at; name a table that has some")
        want = replace(want, descent=replace(want.descent, target=target))
    readings = read_all(model, asked, how, want) if want else map(_unasked, asked)
    found = {reading.id: _held(reader(reading)) for reading in readings}
    unread = [key for key, row in found.items() if not _finite(row)]
    if unread:
        how.say(
            f"{len(unread)} of {len(found)} texts have log-probabilities that are no numbers; their scores are null"
        )
        found |= {key: {**NOTHING, "detail": "the model's log-probabilities are no finite numbers"} for key in unread}

    def said(row: Mapping[str, Any]) -> Mapping[str, Any]:
        if not row["content"]:
            return NOTHING
        return found.get(texts[row["prompt_id"], row["content"]]["response_id"], UNKNOWN)

    yield SCORES.rows({"response_id": r["response_id"], "prompt_id": r["prompt_id"], **said(r)} for r in rows)


def tokens_of(form: Path, rows: Sequence[dict[str, Any]]) -> list[Tokens]:
    """Answers as a model of this form reads them, and the places of each that are asked about; without those that a
    classifier has no name for."""
    network = find("network", network_of(form)).factory()
    read = []
    for row in rows:
        packed = network.pack(form, row["messages"], row["content"], row["inputs"])
        positions = [t for start, end in packed.spans for t in range(start, end)]
        if min(packed.token_ids) >= 0:
            inputs = packed.inputs or row["inputs"]
            read.append(Tokens(row["response_id"], packed.token_ids, positions, inputs, row["prompt_id"]))
    return read


def _unasked(tokens: Tokens) -> Reading:
    """A reading for those who want nothing of the model but its form."""
    return Reading(tokens.id, np.full(len(tokens.positions), np.nan))


def _held(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it is kept until all are there: a list of numbers takes eight times the room of an array."""
    vector = row.get("vector")
    return row if vector is None else {**row, "vector": np.asarray(vector, np.float32)}


def _finite(row: Mapping[str, Any]) -> bool:
    """Whether a score, its quantities and its vector are finite numbers, as far as there are any."""
    numbers = [row["score"], *(value for _, value in row["quantities"])]
    there, vector = [number for number in numbers if number is not None], row.get("vector")
    return bool(np.isfinite(there).all() and (vector is None or np.isfinite(vector).all()))
