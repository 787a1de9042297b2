"""Subclasses and prototypes: what states say beyond their class; and what a teacher says to questions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import Refused
from pipeline.kinds.transform import Signals
from pipeline.transforms.prototypes import means, nearest
from tests.transforms.tables import build, dense, signals


def hidden(seed: int = 0, places: int = 400) -> tuple[Signals, np.ndarray]:
    """A teacher of two classes, each of two clouds that its head does not tell apart; and which cloud it is."""
    draw = np.random.default_rng(seed)
    kind = draw.integers(0, 4, places)
    states = draw.normal(size=(places, 5)) * 0.1
    states[:, 0] += np.where(kind < 2, 1, -1)
    states[:, 1] += np.where(kind % 2, 3, -3)
    logits = states[:, :1] @ np.array([[2.0, -2.0]])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return signals(p, kind // 2, last=states), kind


def test_hidden_kinds_are_told_apart() -> None:
    """Two kinds of each class: the greater of a place is the same one for nearly all of a cloud, and it is a whole."""
    given, kind = hidden()
    made = build("subclasses.lelp", kinds=2, temperature=0.25)(given, given, 3).features["subclasses"]
    assert made.shape == (400, 4)
    np.testing.assert_allclose(made.reshape(-1, 2, 2).sum(2), dense(given), atol=1e-5)
    for c in (0, 1):
        own = made[kind // 2 == c].reshape(-1, 2, 2)[:, c].argmax(1)
        odd = kind[kind // 2 == c] % 2
        assert max((own == odd).mean(), (own != odd).mean()) > 0.95


def test_with_one_kind_it_is_the_teacher() -> None:
    given, _ = hidden()
    made = build("subclasses.lelp", kinds=1)(given, given, 3).features["subclasses"]
    np.testing.assert_allclose(made, dense(given), rtol=1e-5)


def test_what_the_head_reads_tells_no_kinds() -> None:
    """A state that moves along what log-probabilities hang on keeps its kinds."""
    given, _ = hidden()
    moved = given.with_feature("last", given.features["last"] + np.array([0.7, 0, 0, 0, 0]))
    made = (build("subclasses.lelp", kinds=3)(each, given, 3) for each in (given, moved))
    one, two = (each.features["subclasses"].reshape(-1, 2, 3) for each in made)
    np.testing.assert_allclose(one, two, atol=1e-3)


@pytest.mark.parametrize("kinds", [2, 9])
def test_classes_of_nothing_or_of_one_place_are_even(kinds: int) -> None:
    """There is no direction to tell kinds by, or fewer than kinds."""
    given = signals(np.array([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1]]), [0, 0], last=np.array([[1.0, 2.0], [3.0, 5.0]]))
    made = build("subclasses.lelp", kinds=kinds)(given, given, 0).features["subclasses"]
    assert np.isfinite(made).all()
    np.testing.assert_allclose(made.reshape(2, 3, kinds)[:, 1:], made.reshape(2, 3, kinds)[:, 1:, :1].repeat(kinds, 2))


def test_prototypes_are_the_middles_of_clouds() -> None:
    draw = np.random.default_rng(0)
    middles = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    states = middles[np.arange(300) % 3] + draw.normal(size=(300, 2)) * 0.1
    given = signals(np.full((300, 2), 0.5), [0] * 300, last=states)
    made = build("prototypes.codebook", size=3)(given, given, 7).features["prototype"]
    np.testing.assert_allclose(made, middles[np.arange(300) % 3], atol=0.05)
    assert len(np.unique(made, axis=0)) == 3


def test_more_prototypes_than_states_are_the_states() -> None:
    states = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    found = means(states, 3, np.random.default_rng(0))
    assert sorted(found.tolist()) == [[0, 2], [1, 0]]
    at, apart = nearest(states, np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert at.tolist() == [0, 0, 0] and apart.tolist() == [0, 0, 5]


def test_yes_to_a_question_is_the_sum_over_its_classes() -> None:
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    given = signals(p, np.array([0, 2]), last=np.zeros((2, 1)))
    made = build("aspects.grouped", questions=[[0, 2], [1], [2, 2]])(given, given, 0).features["aspects"]
    np.testing.assert_allclose(made, [[0.7, 0.3, 0.2], [0.9, 0.1, 0.8]], atol=1e-6)
    with pytest.raises(Refused, match="names class 3, and there are 3, numbered from 0"):
        build("aspects.grouped", questions=[[3]])(given, given, 0)


def test_the_share_of_yes_is_over_answers_that_are_yes_or_no() -> None:
    """What nobody answered for an example has the mean of the others, and one half where nobody did for any."""
    said = [
        {"Is it red?": ["Yes.", "no", "yes", None, "perhaps"], "Is it big?": ["no"], "Is it old?": ["who knows"]},
        {"Is it red?": [None], "Is it big?": ["yes", "yes"], "Is it old?": []},
        {"Is it big?": ["NO"]},
    ]
    given = replace(signals(np.full((3, 2), 0.5), [0, 1, 0]), said_B=np.array(said))
    yes = build("aspects.answered")(given, given, 0).features["aspects"]
    # In the order of the questions: big, old, red.
    np.testing.assert_allclose(yes, [[0, 0.5, 2 / 3], [1, 0.5, 2 / 3], [0, 0.5, 2 / 3]], rtol=1e-6)
