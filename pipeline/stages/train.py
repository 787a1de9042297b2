"""Train: one student.  Reads examples or signals, writes models/<name>."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.run import How
from pipeline.core.stage import stage
from pipeline.tables.parquet import Scan
from pipeline.training.recipe import StudentParams


class Params(StudentParams):
    pass


@stage(
    writes=None,
    by="tree",
    exactness="repeatable",
    imports=("torch", "transformers"),
    finds=("network",),
)
def train(params: Params, rows: Scan, student: Path, out: Path, how: How, name: str, data: Path, notes: dict) -> None:
    """A plain transformers folder with its tokenizer, `model.json` and the curve of its training."""
    # Here, because `plan` names every stage and must not load torch.
    from pipeline.training.fit import fit

    fit(params, rows, student, None, out, how, name, data, notes)
