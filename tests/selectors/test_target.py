"""Towards a target: what is like it is kept, its own rows never, and a target that is not there is refused."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import Refused
from pipeline.kinds.selector import Budget
from pipeline.selectors import target
from tests.selectors.given import rows


def test_less_keeps_the_family_of_the_target() -> None:
    rng = np.random.default_rng(0)
    family = np.arange(200) % 2
    points = np.concatenate([rng.normal(size=(200, 16)) + 1.5 * np.eye(2, 16)[family] for _ in range(2)], axis=1)
    aims = (np.arange(200) < 20) & (family == 1)
    points[40] = np.nan
    choose = target.less(vector="g", target="aims", rates=(2e-5, 1e-5))
    decision = choose(rows(200, g=points, aims=aims.astype(float)), Budget(rows=10), 0)
    assert family[decision.kept].mean() >= 0.8 and not decision.kept[aims].any()
    assert decision.reason[40] == "no_value"


def test_of_several_tasks_the_one_that_an_answer_helps_most_counts() -> None:
    points = np.array([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7], [2.0, 0.0], [0.0, 3.0]])
    found = target.influence(points, np.arange(5) >= 3, np.array([*"xxxst"], object), (1.0,))
    np.testing.assert_allclose(found, [1, 1, 0.5**0.5, 1, 1])
    one = target.influence(points, np.arange(5) >= 3, np.array([*"xxxss"], object), (1.0,))
    np.testing.assert_allclose(one, [0.5, 0.5, 0.5**0.5, 0.5, 0.5])


def test_dsir_draws_what_is_like_the_target() -> None:
    rng = np.random.default_rng(0)
    near, far = "add the two numbers and give their sum", "the quick brown fox jumps over a lazy dog"
    family = np.arange(200) % 2
    texts = [" ".join(rng.permutation((far, near)[f].split())) for f in family]
    aims = (np.arange(200) < 40) & (family == 1)
    given = rows(200, t=np.array([*texts[:-1], None], object), aims=aims.astype(float))
    decision = target.dsir(text="t", target="aims")(given, Budget(rows=60), 0)
    assert family[decision.kept].mean() >= 0.95 and not decision.kept[aims].any()
    assert decision.reason[199] == "no_value"
    short = target.dsir(text="t", target="aims", least_tokens=9)(given, Budget(), 0)
    assert {*short.reason[family == 1]} == {"target", "too_short", "no_value"} and short.kept[family == 0].all()


@pytest.mark.parametrize("method", [target.less(vector="g", target="none"), target.dsir(text="t", target="none")])
def test_a_target_that_is_not_there_is_refused(method: target.Selector) -> None:
    with pytest.raises(Refused, match="no answer is one of the target, 'none'"):
        method(rows(3, g=np.eye(3), t=np.array(["a", "b", "c"], object)), Budget(), 0)


def test_features_that_are_no_whole_number_of_checkpoints_are_refused() -> None:
    with pytest.raises(Refused, match="'g' has 3 numbers, which are no 2 features"):
        target.less(vector="g", target="aims", rates=(1.0, 1.0))(rows(3, g=np.eye(3), aims=np.ones(3)), Budget(), 0)
