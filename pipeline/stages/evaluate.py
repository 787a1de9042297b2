"""Evaluate: a model against a benchmark.  Reads prompts, writes evals.

Without `use` the greedy answer and the row's own verifier, nothing else: a student is judged as it would be used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import model_validator

from pipeline.asking.examine import ExamParams, examined
from pipeline.contracts import EVALS
from pipeline.core.run import How
from pipeline.core.stage import stage
from pipeline.tables.parquet import Scan


class Params(ExamParams):
    @model_validator(mode="before")
    @classmethod
    def _usual(cls, given: Any) -> Any:
        return {"use": "answers.greedy", **given} if isinstance(given, dict) else given


@stage(writes=EVALS, by="table", exactness="repeatable", imports=("torch", "transformers"), finds=("backend",))
def evaluate(params: Params, prompts: Scan, model: Path, how: How) -> Iterator[pa.RecordBatch]:
    """What the evaluator says of every item."""
    return examined(params, prompts, model, how)
