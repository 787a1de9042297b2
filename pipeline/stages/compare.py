"""Compare: a model beside another, on a benchmark.  Reads prompts, writes evals.

The same as `evaluate`, for evaluators that look at two models: a student and its teacher, or what it was before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipeline.asking.examine import ExamParams, examined
from pipeline.contracts import EVALS
from pipeline.core.run import How
from pipeline.core.stage import Input, Plan, stage
from pipeline.tables.parquet import Scan


class Params(ExamParams):
    against: str

    def inputs(self) -> dict[str, Input]:
        return {**super().inputs(), "against": Input(f"models/{self.against}")}

    def needs(self) -> dict[str, frozenset[str]]:
        return {**super().needs(), self.against: frozenset(self.use.method.traits["needs"])}

    def check(self, plan: Plan) -> list[str]:
        same = [f"against: is {self.model!r}, and so is model; name another"] if self.against == self.model else []
        return same + super().check(plan)


@stage(writes=EVALS, by="table", exactness="repeatable", imports=("torch", "transformers"), finds=("backend",))
def compare(params: Params, prompts: Scan, model: Path, against: Path, how: How) -> Iterator[pa.RecordBatch]:
    """What the evaluator says of every item."""
    return examined(params, prompts, model, how, (params.against, against))
