"""Teacher hacking: a student that comes nearer to its teacher while it gets worse at the task.

The proxy is the loss on the rows that are held out, by which the student learns: how far it is from its teacher's words
or distribution. The golden measure is the share of its own answers to their prompts that the verifier calls right. Both
are looked at during training (`held_out: {share: ..., answers: ...}`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.report.arms import Lineage
from pipeline.report.curves import Curve

# What a look puts into the curve of a training (`training/watch.py`).
LOSS, RIGHT = "held_out", "right"
# A share of the best golden measure that is no alarm, whatever was looked at (the reference's 3 %).
MARGIN = 0.03
Z = 1.96


@dataclass(frozen=True)
class Look:
    """What was seen after so many steps."""

    step: int
    proxy: float
    golden: float


@dataclass(frozen=True)
class Watched:
    """A training that was looked at, and where it went wrong: `alarm` is the look at which the proxy was better than at
    the `best` golden one, and the golden measure worse by more than the margin."""

    model: str
    looks: tuple[Look, ...]
    answers: int
    best: Look
    alarm: Look | None
    margin: float


def watched(lineage: Lineage, curves: Iterable[Curve]) -> list[Watched]:
    """Every training with looks at both measures."""
    found = []
    for curve in curves:
        looks = [Look(int(p["step"]), p[LOSS], p[RIGHT]) for p in curve.points if LOSS in p and RIGHT in p]
        if len(looks) > 1:
            answers = (lineage.arms[curve.model].recipe.get("held_out") or {}).get("answers", 1)
            found.append(judged(curve.model, looks, answers))
    return found


def judged(model: str, looks: list[Look], answers: int) -> Watched:
    """The first look that is an alarm. The margin is the larger of 3 % of the best measure so far and what so many
    answers say by chance (95 %)."""
    best = looks[0]
    for look in looks[1:]:
        if look.golden >= best.golden:
            best = look
        elif best.golden - look.golden > margin(best, answers) and look.proxy < best.proxy:
            return Watched(model, tuple(looks), answers, best, look, margin(best, answers))
    return Watched(model, tuple(looks), answers, best, None, margin(best, answers))


def margin(best: Look, answers: int) -> float:
    """How far the golden measure may fall from its best before it is an alarm: two independent draws of so many answers
    differ by more with a chance of 5 %."""
    p = min(max(best.golden, 1 / (answers + 1)), answers / (answers + 1))
    return max(MARGIN * best.golden, Z * math.sqrt(2 * p * (1 - p) / answers))
