"""Drawn pictures: every knob turns what it says it turns, and nothing else."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from pipeline.core.methods import find
from pipeline.errors import Refused
from pipeline.kinds.verifier import answer_of, metric_of, reference_of
from pipeline.sources.shapes import CLASSES, PARTS, SHAPES


def rows(**arguments: Any) -> list[dict[str, Any]]:
    return [dict(row.columns) for row in find("source", "shapes.one").factory(**{"rows": 200, "seed": 3, **arguments})]


def images(**arguments: Any) -> np.ndarray:
    return np.stack([row["inputs"]["image"] for row in rows(**arguments)])


def test_a_picture_is_named_by_its_shape() -> None:
    found = rows()
    assert {row["reference"] for row in found} == set(SHAPES)
    assert all(row["solution"] == row["reference"] for row in found)
    assert images(size=16, channels=3).shape == (200, 16, 16, 3) and images().dtype == np.uint8


def test_shapes_differ_more_than_their_noise() -> None:
    """The nearest mean of a class, of pictures in the middle, is mostly right."""
    known, asked = rows(seed=1, shift=0, rows=400), rows(seed=2, shift=0)
    means = {s: np.mean([r["inputs"]["image"] for r in known if r["reference"] == s], 0) for s in SHAPES}
    right = [
        min(SHAPES, key=lambda s: np.square(means[s] - r["inputs"]["image"]).sum()) == r["reference"] for r in asked
    ]
    assert np.mean(right) > 0.6


def test_no_knob_of_the_answers_turns_the_pictures() -> None:
    plain = images()
    for turned in ({"slip": 0.5}, {"labelled": 0.2}, {"kinds": 2}):
        np.testing.assert_array_equal(images(**turned), plain)
    slipped = rows(slip=0.5)
    assert 0.3 < np.mean([row["solution"] != row["reference"] for row in slipped]) < 0.7
    assert 0.1 < np.mean([row["solution"] != "?" for row in rows(labelled=0.2)]) < 0.3
    assert {row["reference"] for row in rows(kinds=2)} == {"kind 0", "kind 1"}


def test_knobs_of_the_pictures() -> None:
    assert np.abs(images(noise=0).astype(int) - images(noise=30)).mean() > 5
    assert images(noise=0, shift=0).std(0).mean() < images(noise=0, shift=3).std(0).mean()
    assert {row["domain"] for row in rows(styles=("plain", "negative"))} == {"plain", "negative"}
    assert images(styles=("negative",), noise=0).mean() > images(noise=0).mean() + 50
    counts = Counter(row["reference"] for row in rows(tail=0.05, rows=600))
    assert counts[SHAPES[0]] > 5 * counts[SHAPES[-1]]


def test_more_kinds_than_shapes_are_refused() -> None:
    with pytest.raises(Refused, match="10 shapes are not 11 kinds"):
        rows(kinds=11)


def test_a_view_is_a_half_of_the_pair_of_the_same_class() -> None:
    source = find("source", "shapes.pair").factory
    both, thing, ground = (
        [dict(row.columns) for row in source(rows=80, seed=2, view=view, slip=0.5)]
        for view in ("both", "thing", "ground")
    )
    for whole, left, right in zip(both, thing, ground, strict=True):
        halves = [row["inputs"]["image"] for row in (left, right)]
        assert np.array_equal(whole["inputs"]["image"], np.concatenate(halves, 1))
        assert whole["reference"] == left["reference"] == right["reference"]
        assert whole["domain"] == whole["reference"].split(" on ")[1]
    assert len({row["reference"] for row in both}) == 8
    assert 20 < sum(row["solution"] != row["reference"] for row in both) < 60


def drawn(source: str, **arguments: Any) -> list[dict[str, Any]]:
    return [dict(row.columns) for row in find("source", source).factory(**{"rows": 60, "seed": 3, **arguments})]


def right(row: dict[str, Any]) -> float | None:
    """Whether a row's solution is right by its verifier."""
    verifier = row["verifier"]
    return metric_of(verifier, answer_of(verifier, row["solution"]), reference_of(verifier, row["reference"]))


@pytest.mark.parametrize(("source", "arguments"), [
    ("shapes.scene", {"ask": "pixels"}), ("shapes.scene", {"ask": "caption", "grid": 3, "most": 9}),
    ("shapes.scene", {"ask": "question"}), ("shapes.scene", {"ask": "question", "program": True}),
    ("shapes.drawing", {}), ("shapes.figure", {}), ("shapes.figure", {"each": "apart"}),
])  # fmt: skip
def test_solutions_are_right_but_for_those_that_slip(source: str, arguments: dict[str, Any]) -> None:
    plain = drawn(source, **arguments)
    assert all(right(row) == 1 for row in plain)
    if source == "shapes.figure":
        return
    slipped = drawn(source, **arguments, slip=0.5)
    assert 0.2 < np.mean([right(row) or 0 for row in slipped]) < 0.95
    for one, other in zip(plain, slipped, strict=True):
        assert (one.get("messages"), one["reference"]) == (other.get("messages"), other["reference"])
        if "inputs" in one:
            np.testing.assert_array_equal(one["inputs"]["image"], other["inputs"]["image"])


def test_a_scene_is_what_its_mask_and_its_boxes_say() -> None:
    for row in drawn("shapes.scene", noise=0):
        mask, boxes = row["truth"]["mask"], row["truth"]["boxes"]
        ink = (row["inputs"]["image"] != 40).any(2)
        np.testing.assert_array_equal(ink, mask > 0)
        covered = np.zeros_like(mask)
        for kind, top, left, bottom, right_ in boxes:
            place = slice(top, bottom + 1), slice(left, right_ + 1)
            assert set(np.unique(mask[place])) <= {0, kind} and mask[place].any()
            covered[place] = 1
        assert not mask[covered == 0].any()
        assert row["reference"].split("\n") == [CLASSES[value] for value in mask.flatten()]


def test_questions_are_of_the_verbs_that_are_asked_for() -> None:
    found = drawn("shapes.scene", ask="question", verbs=("more", "left"), rows=200, least=2)
    assert {row["domain"] for row in found} == {"more", "left"}
    answers = Counter(row["reference"].split(" | ")[0] for row in found)
    assert set(answers) == {"yes", "no"} and min(answers.values()) > 60


def test_a_figure_is_asked_about_apart_and_in_turn() -> None:
    whole, apart, one = (drawn("shapes.figure", rows=6, each=each) for each in ("all", "apart", "one"))
    assert len(apart) == 18 and [row["domain"] for row in one] == ["body", "hand", "face"] * 2
    for row in apart:
        number = row["group"]
        [same] = [other for other in whole if other["group"] == number]
        np.testing.assert_array_equal(row["inputs"]["image"], same["inputs"]["image"])
        lines = same["reference"].split("\n")
        assert row["reference"].split("\n") == [lines[point] for point in PARTS[row["domain"]]]
        assert row["truth"]["points"].max() < 24


def test_a_scan_says_what_its_points_lie_on() -> None:
    points, areas = (drawn("shapes.scanned", areas=n, rough=0, noise=0) for n in (None, 4))
    for one, other in zip(points, areas, strict=True):
        shown, lines = one["inputs"], one["reference"].split("\n")
        for name in ("image", "points", "pixel"):
            np.testing.assert_array_equal(shown[name], other["inputs"][name])
        pixel, high = shown["pixel"], shown["points"][:, 2]
        np.testing.assert_array_equal(high, [line != "background" for line in lines])
        np.testing.assert_array_equal(high, (shown["image"].reshape(144, 3)[pixel] != 40).any(1))
        np.testing.assert_array_equal(((shown["points"][:, :2] + 1) * 6).astype(int) @ [12, 1], pixel)
        area = other["inputs"]["areas"].flatten()
        own = np.unique(area[pixel])
        assert 8 < len(own) <= 16 and len(other["reference"].split("\n")) == len(own)
        # Without noise an area is of one colour, or nearly so.
        mean = np.array([shown["image"].reshape(144, 3)[area == one].std(0).mean() for one in own])
        assert np.median(mean) == 0
        for number, line in zip(own, other["reference"].split("\n"), strict=True):
            counts = Counter(np.array(lines)[area[pixel] == number])
            assert counts[line] == max(counts.values())
    unknown = drawn("shapes.scanned", labelled=0)
    assert {line for row in unknown for line in row["solution"].split("\n")} == {"?"}


def test_more_things_than_places_are_refused() -> None:
    for source in ("shapes.scene", "shapes.drawing", "shapes.scanned"):
        with pytest.raises(Refused, match="1 to 5 things do not lie on 4 places"):
            drawn(source, most=5)
