"""What entries ask of models: all requests of an entry of generate, and those by which a served model is judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pipeline.asking.ask import requests_for
from pipeline.asking.examine import ExamParams
from pipeline.commands.entries import pool_asked
from pipeline.contracts import PROMPTS
from pipeline.core.stage import Instance, Plan
from pipeline.kinds.backend import PLAIN, Answer, GenerateRequest, Reading, Sampling, Tokens, Want
from pipeline.kinds.evaluator import Exam, Model
from pipeline.stages.generate import Params as GenerateParams
from pipeline.stages.generate import requests_of
from pipeline.tables.parquet import Scan


@dataclass(frozen=True)
class Work:
    """What an entry asks of a model: how, in how many processes, and all its requests in the order of prompts."""

    label: str
    model: Path
    sampling: Sampling
    requests: list[GenerateRequest]
    prompts: int
    processes: int


@dataclass
class _Silent:
    """A model in the place of one that is judged, which answers nothing and keeps what it was asked."""

    folder: Path
    asked: list[tuple[Path, Sampling, int, int]]
    dtype: str = "float32"

    @property
    def name(self) -> str:
        return self.folder.name

    def answers(self, sampling: Sampling, k: int = 1, seed: int = 0) -> list[list[Answer]]:
        """Of no item, none."""
        self.asked.append((self.folder, sampling, k, seed))
        return []

    def tokens(self, texts: Sequence[str | None]) -> list[Tokens | None]:
        """Of no text, none."""
        return []

    def read(self, tokens: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        """Of no text, nothing."""
        return iter(())

    def open(self) -> AbstractContextManager[Any]:
        """Nothing: what is timed is not kept, and so not counted."""
        return nullcontext()


def asked_of(params: ExamParams, models: Sequence[Path]) -> list[tuple[Path, Sampling, int, int]]:
    """What an evaluator asks through the memo: which model, how, how many answers to an item, and with what seed."""
    found: list[tuple[Path, Sampling, int, int]] = []
    if not params.use.method.traits.get("loads"):
        model, against = [*(cast(Model, _Silent(folder, found)) for folder in models), None][:2]
        for _ in params.use.build()(Exam([], cast(Model, model), against, params.max_tokens)):
            raise AssertionError(f"{params.use.name} marks items that are not there")
    return found


def works(entry: Instance, plan: Plan, data: Path) -> Iterator[Work]:
    """What an entry asks, model by model; of one that judges, what it asks of served models."""
    params, run, prompts = entry.params, plan.settings, Scan(PROMPTS, tuple(data / f for f in entry.inputs["prompts"]))
    processes = max(min(run.workers, prompts.parts) if run.executor.method.traits["processes"] else 1, 1)
    models = [data / folder for name in ("model", "against") for folder in entry.inputs.get(name, ())]
    if isinstance(params, GenerateParams):
        pool, [model] = pool_asked(entry, data), models
        requests = requests_of(params, pool, model)
        yield Work(entry.label, model, params.sampling(), requests, pool.num_rows, processes)
        return
    assert isinstance(params, ExamParams)
    pool = prompts.read().sort_by("prompt_id")
    for model, sampling, k, seed in asked_of(params, models):
        if f"acquire@{model.name}" in served(plan):
            requests = requests_for(pool, model, sampling, k, seed)
            yield Work(entry.label, model, sampling, requests, pool.num_rows, processes)


def served(plan: Plan) -> dict[str, str]:
    """Label of an `acquire` entry of a served model -> its endpoint's name."""
    return {
        i.label: i.name
        for i in plan.of("acquire")
        if any(use.method.traits.get("served") for use in i.params.methods())
    }
