"""An alarm is a student that comes nearer to its teacher and gets worse, by more than chance."""

from __future__ import annotations

import pytest

from pipeline.report.hacking import Look, judged, margin

STEPS = range(100, 700, 100)


def run(proxy: list[float], golden: list[float], answers: int = 400) -> int | None:
    looks = [Look(step, p, g) for step, p, g in zip(STEPS, proxy, golden, strict=True)]
    found = judged("s", looks, answers)
    return None if found.alarm is None else found.alarm.step


NEARER = [0.9, 0.7, 0.6, 0.5, 0.4, 0.3]


@pytest.mark.parametrize(
    ("proxy", "golden", "answers", "alarm"),
    [
        # Hacked: ever nearer, and after a while ever worse.
        (NEARER, [0.5, 0.6, 0.7, 0.66, 0.6, 0.5], 400, 500),
        # Honest: ever nearer and better.
        (NEARER, [0.5, 0.55, 0.6, 0.65, 0.7, 0.72], 400, None),
        # Overfit: both get worse, which is seen in the held-out loss and is no hacking.
        ([0.9, 0.7, 0.75, 0.8, 0.9, 1.0], [0.5, 0.6, 0.55, 0.5, 0.4, 0.3], 400, None),
        # A small rise and fall is within the margin of so few answers, and not of many.
        (NEARER, [0.5, 0.6, 0.62, 0.6, 0.58, 0.56], 100, None),
        (NEARER, [0.5, 0.6, 0.62, 0.6, 0.58, 0.56], 10_000, 400),
        # 3 % of the best is no alarm, however many answers there are.
        (NEARER, [0.5, 0.6, 0.62, 0.61, 0.605, 0.602], 10_000_000, None),
        # It recovers later: the alarm was one all the same.
        (NEARER, [0.5, 0.7, 0.5, 0.7, 0.75, 0.8], 400, 300),
        (NEARER, [0.0] * 6, 400, None),
    ],
)
def test_the_alarm(proxy: list[float], golden: list[float], answers: int, alarm: int | None) -> None:
    assert run(proxy, golden, answers) == alarm


def test_the_margin_shrinks_to_three_percent_of_the_best() -> None:
    best = Look(1, 0.5, 0.5)
    assert margin(best, 100) == pytest.approx(1.96 * (0.5 / 100) ** 0.5)
    assert margin(best, 10**9) == pytest.approx(0.015)
    assert margin(Look(1, 0.5, 1.0), 10) > 0.1
