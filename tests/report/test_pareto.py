"""A model is dominated where another is no worse in anything, and better in something."""

from __future__ import annotations

import pytest

from pipeline.report.pareto import Length, Point, dominated


def point(name: str, quality: float, seconds: float, parameters: float, pool: str = "bench") -> Point:
    return Point(name, pool, quality, {"seconds": seconds, "parameters": parameters})


def test_the_dominated_are_flagged() -> None:
    told = dominated([
        point("teacher", 0.9, 3.0, 100),
        point("student", 0.8, 1.0, 10),
        point("slower", 0.8, 2.0, 10),
        point("worse", 0.7, 1.0, 10),
        point("tiny", 0.5, 0.5, 5),
        point("same", 0.8, 1.0, 10),
        point("elsewhere", 0.1, 9.0, 900, "other"),
    ])  # fmt: skip
    by = {p.model: set(p.dominated_by) for p in told}
    assert by == {
        "teacher": set(), "student": set(), "same": set(), "tiny": set(), "elsewhere": set(),
        "slower": {"student", "same"}, "worse": {"student", "same", "slower"} - {"slower"},
    }  # fmt: skip
    assert [p.model for p in told][:2] == ["teacher", "same"]


def test_what_is_not_known_of_both_is_not_compared() -> None:
    served = Point("served", "bench", 0.9, {"seconds": 0.5})
    slow = point("slow", 0.8, 1.0, 10)
    assert {p.model: p.dominated_by for p in dominated([served, slow])} == {"served": (), "slow": ("served",)}


@pytest.mark.parametrize(
    ("right", "teacher", "kept"), [(0.6, 0.8, 0.75), (None, 0.8, None), (0.6, None, None), (0.6, 0.0, None)]
)
def test_what_is_kept_is_a_share_of_the_teachers(
    right: float | None, teacher: float | None, kept: float | None
) -> None:
    assert Length(1, 2, 3, 0.1, right, teacher).kept == (kept if kept is None else pytest.approx(kept))
