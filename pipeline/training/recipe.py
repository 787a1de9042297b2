"""A recipe: everything about training that changes a student's weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.contracts import EXAMPLES, SIGNALS
from pipeline.core.methods import Choice, Use, UseObjective
from pipeline.core.stage import NAME, Input, StageParams, gate_of
from pipeline.kinds.backend import LOCAL


class Adapter(Choice):
    """Low-rank adapters instead of all weights; merged when the student is saved (Hu et al. 2021)."""

    rank: PositiveInt
    alpha: PositiveFloat
    dropout: float = Field(default=0.0, ge=0, lt=1)


class Recipe(StageParams):
    """Optimizer and schedule: linear warm-up, constant, then linear decay over the last `decay_share` of the steps."""

    epochs: PositiveFloat
    batch_rows: PositiveInt = 32
    accumulate: PositiveInt = 1
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    warmup_steps: NonNegativeInt = 20
    decay_share: float = Field(default=0.5, ge=0, le=1)
    max_grad_norm: PositiveFloat = 1.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    adapter: Adapter | None = None
    seed: int


class Objective(Choice):
    """One term of the weighted sum."""

    weight: float = 1.0
    use: UseObjective


class StudentParams(Recipe):
    """A recipe with what it is applied to: the rows, the model it starts from, the objectives.

    Entries of one `arm` differ in nothing but their seeds; the report joins them into one line.
    """

    of: str
    student: str
    arm: str | None = Field(default=None, pattern=NAME)
    objectives: tuple[Objective, ...] = Field(min_length=1)

    def inputs(self) -> dict[str, Input]:
        return {
            "rows": Input(self.of, SIGNALS if self.of.startswith("signals/") else EXAMPLES),
            "gates": gate_of(self.of),
            "student": Input(f"models/{self.student}"),
        }

    def output(self, instance: str) -> str:
        return f"models/{instance}"

    def methods(self) -> list[Use]:
        return [term.use for term in self.objectives]

    def needs(self) -> dict[str, frozenset[str]]:
        return {self.student: frozenset({"gradients"})}

    def gives(self) -> frozenset[str]:
        return frozenset(LOCAL)
