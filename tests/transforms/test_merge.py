"""Two teachers as one: means by hand, bounds of what is not stored, and weights by agreement."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.transforms.tables import build, dense, signals

ONE, TWO = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]), np.array([[0.1, 0.3, 0.6], [0.1, 0.1, 0.8]])


def test_the_mean_of_whole_distributions_is_the_mean() -> None:
    made = build("merge.mean", share=0.25)(signals(ONE, [1, -1]), signals(TWO, [1, -1]), 0)
    np.testing.assert_allclose(dense(made), 0.75 * ONE + 0.25 * TWO, rtol=1e-6)
    assert made.target_logprob_N[0] == pytest.approx(np.log(0.225), rel=1e-5)


def test_the_mean_of_two_without_a_tail_has_none() -> None:
    """A tail of rounding would be a loss of its own: a student of all outcomes has nothing there."""
    draw = np.random.default_rng(3)
    tables = [replace(signals(draw.dirichlet(np.ones(50), 40), [7] * 40), tail_N=np.zeros(40, "f4")) for _ in "ab"]
    for use in ("merge.mean", "merge.agreement", "merge.confidence"):
        assert not build(use)(*tables, 0).tail_N.any()


def test_a_tail_that_is_no_rounding_is_the_mean_of_both() -> None:
    one, two = (replace(signals(p[:1], [-1], k=2), tail_N=np.array([t], "f4")) for p, t in ((ONE, 1e-7), (ONE, 3e-7)))
    np.testing.assert_allclose(build("merge.mean")(one, two, 0).tail_N, [2e-7], rtol=1e-5)


def test_what_one_teacher_does_not_store_is_in_its_tail_but_for_what_stands_there() -> None:
    """Stored: 0 and 1 of the one, 2 and 1 of the other, whose tail is known to hold 0.1 of 0, which stands there."""
    one, two = signals(ONE[:1], [0], k=2), signals(TWO[:1], [0], k=2)
    made = build("merge.mean")(one, two, 0)
    assert made.ids_NK.tolist() == [[0, 2]]
    np.testing.assert_allclose(np.exp(made.logprobs_NK[0]), [(0.7 + 0.1) / 2, 0.6 / 2], rtol=1e-5)
    np.testing.assert_allclose(made.tail_N, [1 - 0.4 - 0.3], rtol=1e-5)
    assert made.target_logprob_N[0] == pytest.approx(made.logprobs_NK[0, 0])


def test_three_teachers_are_a_chain() -> None:
    third = np.array([[0.2, 0.2, 0.6], [0.3, 0.4, 0.3]])
    first, second, last = (signals(p, [0, 0]) for p in (ONE, TWO, third))
    made = build("merge.mean", share=1 / 3)(build("merge.mean")(first, second, 0), last, 0)
    np.testing.assert_allclose(dense(made), (ONE + TWO + third) / 3, rtol=1e-5)


def test_examples_count_as_their_teachers_agree() -> None:
    """Equal ones wholly, opposed ones not at all, and the distribution is the mean."""
    tiny = 1e-12
    one = np.array([[0.5, 0.5], [1 - tiny, tiny], [0.9, 0.1]])
    two = np.array([[0.5, 0.5], [tiny, 1 - tiny], [0.5, 0.5]])
    made = build("merge.agreement", power=2.0)(signals(one, [0] * 3), signals(two, [0] * 3), 0)
    half = (one[2] + two[2]) / 2
    bits = np.mean([(p * np.log2(p / half)).sum() for p in (one[2], two[2])])
    np.testing.assert_allclose(made.weight_B, [1, 0, (1 - bits) ** 2], atol=1e-6)
    np.testing.assert_allclose(dense(made)[2], half, rtol=1e-5)


def test_a_teacher_that_holds_the_label_has_more() -> None:
    """CA-MKD of two teachers, written as 1 - softmax of their cross-entropies."""
    made = build("merge.confidence")(signals(ONE, [0, -1]), signals(TWO, [0, -1]), 0)
    loss = -np.log([0.7, 0.1])
    weight = 1 - np.exp(loss) / np.exp(loss).sum()
    np.testing.assert_allclose(dense(made)[0], weight @ np.stack([ONE[0], TWO[0]]), rtol=1e-5)
    np.testing.assert_allclose(dense(made)[1], (ONE[1] + TWO[1]) / 2, rtol=1e-5)


def test_a_second_teachers_tap_stands_beside_the_first_ones() -> None:
    one, two = (signals(p, [0, 1], last=np.full((2, 3), i)) for i, p in enumerate((ONE, TWO)))
    made = build("merge.taps", name="expert")(one, two, 0)
    assert made.features["last"].tolist() == [[0] * 3] * 2 and made.features["expert"].tolist() == [[1] * 3] * 2
    np.testing.assert_array_equal(dense(made), dense(one))
