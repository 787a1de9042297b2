"""Answers that came with the data: a text, or arrays where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.methods import find
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.errors import Refused
from pipeline.kinds.backend import Answer, GenerateRequest, Sampling
from pipeline.tables.tensors import cell, spelled, unspelled

TRUTH = cell({"points": np.arange(6, dtype=np.float32).reshape(3, 2), "centres": np.zeros((1, 2), np.float32)})


def answered(place: Path, **given: object) -> Answer:
    how = How(RunSettings(device="cpu"), place, "generate@solutions")
    with find("backend", "recorded.solutions").factory(folder=place, card={}, how=how) as opened:
        [answer] = opened.generate([GenerateRequest("r", "p", [], 0, 0, **given)], Sampling(0.0, 1.0, 8))
    return answer


def test_a_solution_is_the_answer(tmp_path: Path) -> None:
    found = answered(tmp_path, solution="four", truth=TRUTH)
    assert (found.content, found.outputs) == ("four", None)


def test_arrays_are_the_answer_where_there_is_no_text(tmp_path: Path) -> None:
    found = answered(tmp_path, truth=TRUTH)
    assert (found.content, found.outputs) == ("centres 1 x 2, points 3 x 2", TRUTH)


def test_a_prompt_with_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="prompt p has no solution"):
        answered(tmp_path)


def test_arrays_are_spelled_for_the_memo_and_come_back() -> None:
    assert unspelled(spelled(TRUTH)) == TRUTH and spelled(None) is unspelled(None) is None
    assert isinstance(spelled(TRUTH)[0]["data"], str)
