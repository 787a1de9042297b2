"""A folder of several teachers' signals on the same examples: one student learns from all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.contracts import SIGNALS
from pipeline.tables.parquet import Scan
from tests.training.test_fit import data, losses, one_thread, run  # noqa: F401

SECOND = "signals/some/second"


@pytest.fixture
def two(data: Path) -> Path:  # noqa: F811
    """Two teachers that were asked all outcomes at the same places."""
    for name, model in (("teacher", "teacher"), ("second", "base")):
        inputs = {"examples": ("examples/some",), "model": (f"models/{model}",)}
        run(data, "probe", name, {"of": "some", "model": model, "top_k": 64}, inputs)
    return data


def merged(data: Path, use: str) -> Path:  # noqa: F811
    given = {"of": "some", "from": "teacher", "with": SECOND, "use": f"merge.{use}", "seed": 1}
    inputs = {"signals": ("signals/some/teacher",), "beside": (SECOND,)}
    return run(data, "transform", use, given, inputs)


def student(data: Path, name: str, rows: tuple[str, ...], **changed: Any) -> list[float]:  # noqa: F811
    """The losses of a student, all rows in every step."""
    of = rows[0] if len(rows) == 1 else "signals/some"
    (data / "gates" / of).mkdir(parents=True, exist_ok=True)
    given = {
        "of": of, "student": "base", "epochs": 4, "batch_rows": 24 * len(rows), "warmup_steps": 0, "seed": 17,
        "objectives": [{"use": "divergence.forward"}], **changed,
    }  # fmt: skip
    return losses(
        run(data, "train", name, given, {"rows": rows, "gates": (f"gates/{of}",), "student": ("models/base",)})
    )


def test_a_student_of_each_teacher_is_that_of_their_mean(two: Path) -> None:
    """By forward KL, from which the mean differs by what no student changes: how far the teachers are apart."""
    each = np.array(student(two, "each", ("signals/some/teacher", SECOND)))
    mean = np.array(student(two, "mean", (f"signals/some/{merged(two, 'mean').name}",)))
    assert len(each) == len(mean) == 4 and mean[-1] < mean[0] - 1e-3
    assert (each - mean).min() > 0.1 and np.ptp(each - mean) < 1e-5


def test_examples_on_which_teachers_agree_weigh_more(two: Path) -> None:
    agreed = merged(two, "agreement")
    weights = Scan(SIGNALS, (agreed,)).read(["weight"])["weight"].to_numpy()
    assert (weights > 0).all() and (weights < 1).all() and np.ptp(weights) > 0.01
    rows = (f"signals/some/{agreed.name}",)
    found = student(two, "agreed", rows)
    assert found[-1] < found[0] < student(two, "plain", (f"signals/some/{merged(two, 'mean').name}",))[0]
