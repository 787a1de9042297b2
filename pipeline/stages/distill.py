"""Distill: one student, beside a live teacher.  Reads examples, writes models/<name>.

The same as `train`, for objectives on the teacher's whole distribution, which nobody would store.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.contracts import RESPONSES
from pipeline.core.run import How
from pipeline.core.stage import Input, stage
from pipeline.tables.parquet import Scan
from pipeline.training.recipe import StudentParams


class Params(StudentParams):
    """`texts` are the responses that the examples were packed from, for a teacher that cuts them into other tokens."""

    teacher: str
    texts: str | None = None

    def inputs(self) -> dict[str, Input]:
        texts = {} if self.texts is None else {"texts": Input(self.texts, RESPONSES)}
        return {**super().inputs(), "teacher": Input(f"models/{self.teacher}"), **texts}

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
    params: Params,
    rows: Scan,
    student: Path,
    teacher: Path,
    out: Path,
    how: How,
    name: str,
    data: Path,
    notes: dict,
    texts: Scan | None = None,
) -> None:
    """A plain transformers folder with its tokenizer, `model.json` and the curve of its training."""
    # Here, because `plan` names every stage and must not load torch.
    from pipeline.training.fit import fit

    fit(params, rows, student, teacher, out, how, name, data, notes, texts)
