"""How students learnt: the loss of every step, on rows that are held out too, and what they were trained for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.report.arms import Lineage

POINTS = 200


@dataclass(frozen=True)
class Curve:
    """How a student was trained: its objective and every logged step."""

    model: str
    objective: str
    points: tuple[Mapping[str, float], ...]

    @property
    def thinned(self) -> bool:
        """Whether a picture has fewer points than there are."""
        return len(self.points) > POINTS

    @property
    def drawn(self) -> list[tuple[float, float]]:
        """(step, loss) for a picture: long curves as means of neighbours."""
        steps, losses = (np.array([p[key] for p in self.points], np.float64) for key in ("step", "loss"))
        cuts = zip(*(np.array_split(values, min(POINTS, len(values))) for values in (steps, losses)), strict=True)
        return [(float(step.mean()), float(loss.mean())) for step, loss in cuts]

    @property
    def held_out(self) -> list[tuple[float, float]]:
        """(step, loss on the rows that are held out) of every look."""
        return [(p["step"], p["held_out"]) for p in self.points if "held_out" in p]


def curves(lineage: Lineage, models: Path | None) -> list[Curve]:
    """The loss curve of every student."""
    found = []
    for arm in lineage.arms.values() if models else []:
        path = models / arm.model / "training.jsonl"  # type: ignore[operator]
        points = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
        if points:
            found.append(Curve(arm.model, " + ".join(arm.objectives), tuple(points)))
    return found


@dataclass(frozen=True)
class Effort:
    """What a student was trained for: its steps, and the tokens with loss in all of them."""

    steps: int
    tokens: int


def effort(curves: Iterable[Curve]) -> dict[str, Effort]:
    """Student -> its effort; what stands for several seeds is told of each."""
    return {c.model: Effort(len(c.points), round(sum(p.get("places", 0) for p in c.points))) for c in curves}
