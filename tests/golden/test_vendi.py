"""How different vectors are, as vendi-score 0.0.3 says it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.tables.vectors import vendi

GOLDEN = np.load(Path(__file__).parent / "data" / "selection_vendi.npz")
X = GOLDEN["X"]


@pytest.mark.parametrize("subset", ["fl30", "first30", "dispmin30", "one_cluster30"])
def test_subsets_have_the_score_of_the_package(subset: str) -> None:
    assert vendi(X[GOLDEN[f"idx_{subset}"]]) == pytest.approx(float(GOLDEN[f"vendi_{subset}"]), abs=1e-6)


def test_copies_change_nothing_and_right_angles_count_one_each() -> None:
    assert vendi(np.concatenate([X, X])) == pytest.approx(vendi(X), abs=1e-6)
    assert vendi(np.eye(7) * np.arange(1, 8)[:, None]) == pytest.approx(7)
    assert vendi(np.ones((5, 3))) == pytest.approx(1)


def test_what_has_no_length_or_is_not_known_is_left_out() -> None:
    nothing = np.array([[0.0, 0.0], [np.nan, 1.0]])
    assert vendi(np.concatenate([np.eye(2), nothing])) == pytest.approx(2)
    assert vendi(nothing) == vendi(np.empty((0, 4))) == 0
