"""Masks and points are judged by how well they agree with the right ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.core.methods import find
from pipeline.kinds.backend import Answer
from pipeline.kinds.evaluator import Exam, Item, Mark


def marks(use: str, verifier: str, pairs: list[tuple[str | None, str | None]], **arguments: Any) -> list[Mark]:
    items = [Item(f"p{i}", [], "d", verifier=verifier, reference=right) for i, (_, right) in enumerate(pairs)]
    answers = [[Answer(f"r{i}", said, "stop")] for i, (said, _) in enumerate(pairs)]
    model: Any = SimpleNamespace(answers=lambda sampling: answers)
    return list(find("evaluator", use).factory(**arguments)(Exam(items, model)))


def test_masks() -> None:
    found = marks("places.iou", "dense.pixels", [("a\nb\nb\nb", "a\na\nb\nb"), ("a", "a\na"), (None, "a"), ("a", None)])
    assert [mark.metric for mark in found] == [pytest.approx((1 / 2 + 2 / 3) / 2), 0, 0]
    assert [mark.item.prompt_id for mark in found] == ["p0", "p1", "p2"]


def test_points() -> None:
    pairs = [("0 0\n3 4", "3 4\n3 4"), ("x\n1 1", "1 1\n1 1"), ("1 1", "?"), (None, "1 1")]
    found = marks("places.distance", "dense.points", pairs, most=10.0)
    assert [mark.metric for mark in found] == [2.5, 10.0, None, 10.0]
