"""How well answers with a line for each place agree with the right ones."""

from __future__ import annotations

import math

from pipeline.text.places import distances, overlap, point


def test_overlap_is_the_mean_over_classes_of_what_is_shared() -> None:
    # a: 1 of 2 places that either gives it; b: 2 of 3.
    assert overlap(list("abb"), list("aab")) == (1 / 2 + 1 / 2) / 2
    assert overlap(list("abbb"), list("aabb")) == (1 / 2 + 2 / 3) / 2
    assert overlap(list("ab"), list("ab")) == 1 and overlap(list("ab"), list("cd")) == 0
    assert overlap(list("a?b"), list("abb")) == overlap(list("ab"), list("ab"))
    assert overlap(["?"], ["a"]) is None and overlap(["a"], ["a", "a"]) == 0


def test_points_are_so_far_apart() -> None:
    assert distances(["0 0", "3 4"], ["3 4", "3 4"]) == [5.0, 0.0]
    assert distances(["0 0", "?"], ["?", "1 1"]) == [] and distances(["x"], ["1 1"]) == [math.inf]
    assert distances(["1 1"], ["1 1", "2 2"]) == [math.inf, math.inf]
    assert point("1 nan") is None and point("1 2 3") is None and point(" 1  2 ") == (1.0, 2.0)
