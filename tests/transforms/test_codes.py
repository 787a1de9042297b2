"""Codes: each level says what the one before it left."""

from __future__ import annotations

import numpy as np

from tests.transforms.tables import build, signals

# Three places far apart, each with two kinds of things a little beside it.
CENTRES = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
BESIDE = np.array([[-1.0, 0.0], [1.0, 0.0]])
PLACE, KIND = np.arange(24) % 3, np.arange(24) // 3 % 2


def codes(states: np.ndarray, **arguments: int) -> np.ndarray:
    given = signals(np.full((len(states), 2), 0.5), np.zeros(len(states), int), last=states)
    return build("codes.residual", **arguments)(given, given, 0).features["codes"].astype(int)


def test_the_second_number_is_of_what_the_first_left() -> None:
    found = codes(CENTRES[PLACE] + BESIDE[KIND], size=3, levels=2)
    assert len({(p, c) for p, c in zip(PLACE, found[:, 0], strict=True)}) == len(set(found[:, 0])) == 3
    # What is left is the same beside every place, so a kind has one number everywhere.
    assert len({(k, c) for k, c in zip(KIND, found[:, 1], strict=True)}) == len(set(found[:, 1])) == 2


def test_they_are_learnt_from_the_other_table() -> None:
    own, other = (signals(np.full((len(s), 2), 0.5), np.zeros(len(s), int), last=s)
                  for s in (CENTRES[[0, 1]] + 3, CENTRES[PLACE]))  # fmt: skip
    made = build("codes.residual", size=3, levels=1)(own, other, 0).features["codes"][:, 0]
    again = build("codes.residual", size=3, levels=1)(other, other, 0).features["codes"][:, 0]
    assert made.tolist() == again[:2].tolist()
