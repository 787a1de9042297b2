"""Distill: one student, beside a live teacher.  Reads examples, writes models/<name>.

The same as `train`, for objectives on the teacher's whole distribution, which nobody would store.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.core.run import How
from pipeline.core.stage import Input, stage
from pipeline.tables.parquet import Scan
from pipeline.training.recipe import StudentParams


class Params(StudentParams):
    teacher: str

    def inputs(self) -> dict[str, Input]:
        return {**super().inputs(), "teacher": Input(f"models/{self.teacher}")}

    def needs(self) -> dict[str, frozenset[str]]:
        return {**super().needs(), self.teacher: frozenset({"full_logits"})}


@stage(
    writes=None,
    by="tree",
    exactness="repeatable",
    imports=("torch", "transformers"),
    finds=("network",),
)
def distill(
    params: Params, rows: Scan, student: Path, teacher: Path, out: Path, how: How, name: str, data: Path
) -> None:
    """A plain transformers folder with its tokenizer, `model.json` and the curve of its training."""
    # Here, because `plan` names every stage and must not load torch.
    from pipeline.training.fit import fit

    fit(params, rows, student, teacher, out, how, name, data)
