"""A recipe: everything about training that changes a student's weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.stage import Choice, StageParams


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
