"""The students of the graph are those of the golden training."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Workspace
from tests.golden import training

pytestmark = pytest.mark.e2e


def test_the_students_are_the_golden_ones(finished: Workspace) -> None:
    assert training.differences(finished.data, "small") == []


def test_another_training_is_told(finished: Workspace, done: Workspace) -> None:
    path = done.data / "models" / "kd" / "training.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    lines[1]["loss"] *= 1.01
    path.unlink()
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    (told,) = training.differences(done.data, "small")
    assert told.startswith("kd: loss") and "at step 2" in told
