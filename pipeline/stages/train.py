"""Train: one student.  Reads examples or signals, writes models/<name>."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.core.run import How
from pipeline.core.stage import stage
from pipeline.tables.parquet import Scan
from pipeline.training.fit import fit
from pipeline.training.recipe import StudentParams


class Params(StudentParams):
    def check(self, plan: Any) -> list[str]:
        compares = [t.use.name for t in self.objectives if t.use.method.traits.get("teacher") == "any"]
        if compares and not self.of.startswith("signals/"):
            return [
                f"{', '.join(compares)} compares with a teacher's distribution, and {self.of} holds none: say "
                f"`of: signals/<examples>/<probe>`, or move the entry to `distill:` with a `teacher:`"
            ]
        return []


@stage(writes=None, by="tree", exactness="repeatable", imports=("torch", "transformers", "transformers.trainer"))
def train(params: Params, rows: Scan, student: Path, out: Path, how: How, name: str) -> None:
    """A plain transformers folder with its tokenizer, `model.json` and the curve of its training."""
    fit(params, rows, student, None, out, how, name)
