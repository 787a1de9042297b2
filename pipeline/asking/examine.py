"""Judge a model by an evaluator: what the sections `evaluate` and `compare` have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import PositiveInt

from pipeline.asking.ask import ask, requests_for
from pipeline.asking.read import read_all
from pipeline.contracts import EVALS, PROMPTS
from pipeline.core.methods import Use, find
from pipeline.core.run import How
from pipeline.core.stage import Input, Plan, StageParams
from pipeline.kinds.backend import PLAIN, Answer, Backend, Reading, Sampling, Tokens, Want, card_of, open_model
from pipeline.kinds.evaluator import Evaluator, Exam, Item, measure_of
from pipeline.model.folder import network_of
from pipeline.tables.parquet import Scan


class ExamParams(StageParams):
    """Who is judged on what, and how."""

    model: str
    pool: str
    max_tokens: PositiveInt = 64
    use: Use[Evaluator]

    def inputs(self) -> dict[str, Input]:
        return {"prompts": Input(f"prompts/{self.pool}", PROMPTS), "model": Input(f"models/{self.model}")}

    def output(self, instance: str) -> str:
        return f"evals/{instance}"

    def needs(self) -> dict[str, frozenset[str]]:
        return {self.model: frozenset(self.use.method.traits["needs"])}

    def beside(self) -> bool:
        """Whether its evaluator looks at a second model."""
        return bool(self.use.method.traits.get("beside"))

    def check(self, plan: Plan) -> list[str]:
        if self.beside() == hasattr(self, "against"):
            return []
        if self.beside():
            return [f"use: {self.use.name} looks at two models; write the entry under `compare:`, with `against:`"]
        return [f"use: {self.use.name} looks at one model; write the entry under `evaluate:`, without `against:`"]


class Subject:
    """A model that is judged, asked through the memo (`kinds/evaluator.py`)."""

    def __init__(self, name: str, folder: Path, pool: pa.Table, how: How) -> None:
        self.name, self.folder, self.pool, self.how = name, folder, pool, how

    @cached_property
    def dtype(self) -> str:
        return card_of(self.folder).get("dtype", "float32")

    def answers(self, sampling: Sampling, k: int = 1, seed: int = 0) -> list[list[Answer]]:
        """k answers to every item."""
        requests = requests_for(self.pool, self.folder, sampling, k, seed)
        found = ask(self.folder, requests, sampling, self.how)
        answers = [found[request.request_id] for request in requests]
        return [answers[start : start + k] for start in range(0, len(answers), k)]

    def tokens(self, texts: Sequence[str | None]) -> list[Tokens | None]:
        """Every item answered by a text, as the model reads it."""
        form = self.folder / "tokenizer"
        network = find("network", network_of(form)).factory()
        found: list[Tokens | None] = []
        columns = (self.pool[name].to_pylist() for name in ("prompt_id", "messages", "inputs"))
        for prompt_id, messages, inputs, text in zip(*columns, texts, strict=True):
            packed = network.pack(form, messages, text, inputs) if text else None
            if packed is None or min(packed.token_ids) < 0:
                found.append(None)
                continue
            positions = [t for start, end in packed.spans for t in range(start, end)]
            found.append(Tokens(prompt_id, packed.token_ids, positions, packed.inputs or inputs, prompt_id))
        return found

    def read(self, tokens: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        """What the model says of the texts."""
        return read_all(self.folder, tokens, self.how, want)

    def open(self) -> AbstractContextManager[Backend]:
        """The model itself."""
        return open_model(self.folder, self.how)


def examined(
    params: ExamParams, prompts: Scan, model: Path, how: How, against: tuple[str, Path] | None = None
) -> Iterator[pa.RecordBatch]:
    """The mark of every item, as a row of `evals`."""
    pool = prompts.read()
    names = list(Item.__dataclass_fields__)
    items = [Item(**row) for row in pool.select(names).to_pylist()]
    other = None if against is None else Subject(*against, pool, how)
    exam = Exam(items, Subject(params.model, model, pool, how), other, params.max_tokens)
    measure = measure_of(params.use.method, params.use.arguments)
    rows: list[dict[str, Any]] = []
    for mark in params.use.build()(exam):
        item = mark.item
        rows.append({
            "task": params.pool,
            "item_id": item.prompt_id if mark.place is None else f"{item.prompt_id}/{mark.place}",
            "prompt_id": item.prompt_id,
            "domain": item.domain,
            "level": item.level,
            "model": params.model,
            "content": mark.content,
            "prediction": mark.prediction,
            "target": mark.target,
            "metric": mark.metric,
            "measure": mark.measure or measure,
            "quantities": list(mark.quantities.items()),
            "confidence": mark.confidence,
            "finish_reason": mark.finish_reason,
            "outputs": mark.outputs,
        })  # fmt: skip
    yield EVALS.rows(rows)
