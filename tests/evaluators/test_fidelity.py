"""A student that copies its teacher moves agreement and not accuracy, and one that solves moves accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluators.made import Saying, items, marks

RIGHT = [f"{i}" for i in range(20)]
# The teacher has every second item wrong, each in its own way.
TAUGHT = [[text if i % 2 else f"no{i}"] for i, text in enumerate(RIGHT)]


def mean(values: list[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))


def test_copying_is_told_apart_from_solving() -> None:
    asked = items(*RIGHT)
    teacher = Saying("teacher", asked, said=TAUGHT)
    copier = Saying("copier", asked, said=TAUGHT)
    # As good as the copier, and where the teacher is wrong, wrong in another way.
    solver = Saying("solver", asked, said=[[text if i % 2 else f"other{i}"] for i, text in enumerate(RIGHT)])
    found = {s.name: marks("fidelity.answers", asked, s, teacher) for s in (copier, solver)}
    accuracy = {name: mean([m.quantities["right"] for m in ms]) for name, ms in found.items()}
    agreement = {name: mean([m.metric for m in ms]) for name, ms in found.items()}
    copied = {name: mean([m.quantities.get("copied") for m in ms]) for name, ms in found.items()}
    assert accuracy == {"copier": 0.5, "solver": 0.5}
    assert agreement == {"copier": 1.0, "solver": 0.5} and copied == {"copier": 1.0, "solver": 0.0}


@pytest.mark.parametrize(
    ("own", "theirs", "like"),
    [
        ("a b c d e", "a b c d e", 1.0),
        ("a b c d e", "v w x y z", 0.0),
        ("a b", "a b", 1.0),
        ("a b c d", "a b x y", 0.0),
        ("a b", "a c", 0.0),
        ("a", "a a a", 1.0),
        ("", "a b", None),
        ("a b c", "a b d", 0.0),
        ("a b c d e f", "a b c d e g", (10 / 12 * 8 / 10 * 6 / 8 * 4 / 6) ** 0.25),
    ],
)
def test_rationales_are_like_by_the_runs_of_words_that_both_have(own: str, theirs: str, like: float | None) -> None:
    asked = items("1")
    one, other = (Saying(name, asked, said=[[text]]) for name, text in (("s", own), ("t", theirs)))
    [mark] = marks("fidelity.rationale", asked, one, other)
    assert mark.metric == (like if like is None else pytest.approx(like))
