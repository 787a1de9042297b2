"""The students of the graph are those of the golden training."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.conftest import Workspace
from tests.golden import training

pytestmark = pytest.mark.e2e


def test_the_students_are_the_golden_ones(finished: Workspace) -> None:
    assert training.differences(finished.data, "small") == []


@pytest.mark.parametrize(
    ("steps", "by", "told"),
    [
        pytest.param(slice(1, 2), 1.01, "kd: loss .* at step 2,", id="one early step"),
        pytest.param(slice(2, None), 1.6, "kd: mean loss .* from step 1 ", id="all that follow"),
    ],
)
def test_another_training_is_told(
    steps: slice, by: float, told: str, finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = training.of(finished.data)
    losses = np.array(found["kd"]["losses"])
    losses[steps] *= by
    found["kd"]["losses"] = list(losses)
    monkeypatch.setattr(training, "of", lambda data: found)
    assert [text for text in training.differences(finished.data, "small") if re.match(told, text)]


def test_on_another_processor_late_steps_hold_by_their_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(training.GOLDEN.read_text("utf-8"))["default"]
    for student in found.values():
        student["losses"][training.EARLY] *= 1.3
    monkeypatch.setattr(training, "of", lambda data: found)
    monkeypatch.setattr(training, "machine", lambda: {"processor": "of another type"})
    assert training.differences(tmp_path, "default") == []
    found["kd"]["losses"][300:] = [1.5 * loss for loss in found["kd"]["losses"][300:]]
    (told,) = training.differences(tmp_path, "default")
    assert told.startswith("kd: mean loss")
