"""Pairs of answers: the formulas by hand, whole steps, and sets that say nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.core.methods import find
from pipeline.kinds.objective import DenseTeacher, Loss, View, first_look

NAN = math.nan


def built(name: str, **arguments: Any) -> Any:
    return find("objective", name).factory(**arguments)


def view(
    said: list[list[float]], rewards: list[float], sets: list[int], reference: list[list[float]] | None = None
) -> View:
    """Answers, as log-probabilities of their tokens."""
    reference = reference or [[0.0] * len(answer) for answer in said]
    return View(
        logprob_N=torch.tensor([x for answer in said for x in answer], dtype=torch.float64, requires_grad=True),
        reference_N=torch.tensor([x for answer in reference for x in answer], dtype=torch.float64),
        example_N=torch.tensor([i for i, answer in enumerate(said) for _ in answer], dtype=torch.int64),
        weight_N=torch.ones(sum(map(len, said)), dtype=torch.float64),
        set_B=torch.tensor(sets, dtype=torch.int64),
        reward_B=torch.tensor(rewards, dtype=torch.float64),
    )


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


BOTH = [[-1.0, -2.0, -3.0], [-2.0, -2.0]]
# Gains are -6 and -4 in sum, -2 and -2 a token; the first answer is the better one.
VALUES: list[tuple[str, dict[str, Any], float]] = [
    ("ipo", {"beta": 0.25}, (-6 + 4 - 2) ** 2),
    ("simpo", {"beta": 2.0, "margin_share": 0.25}, -math.log(sigmoid(2.0 * (-2 + 2 - 0.25)))),
    ("simpo", {"beta": 0.5, "margin_share": 0.0, "length": "sum"}, -math.log(sigmoid(0.5 * -2))),
    # Neither gained anything on average, so both are held against 0.
    ("kto", {"beta": 0.1}, ((1 - sigmoid(-0.6)) + (1 - sigmoid(0.4))) / 2),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), VALUES)
def test_a_pair_is_worth_what_the_formula_says(name: str, arguments: dict[str, Any], expected: float) -> None:
    loss = built(f"pairs.{name}", **arguments)(view(BOTH, [1.0, 0.0], [0, 0]))
    assert loss.value_N.tolist() == pytest.approx([expected]) and loss.metrics["pairs"].tolist() == [1]


@pytest.mark.parametrize("name", ["ipo", "simpo", "kto"])
@pytest.mark.parametrize("rewards", [[1.0, 1.0], [NAN, NAN], [NAN, 0.0]])
def test_a_set_without_two_different_rewards_is_zero_and_counted(name: str, rewards: list[float]) -> None:
    given = view([*BOTH, *BOTH], [*rewards, 1.0, 0.0], [0, 0, 1, 1])
    loss = built(f"pairs.{name}")(given)
    assert loss.value_N[0] == 0 and loss.metrics["pairs"].tolist() == [0, 1]
    alone = built(f"pairs.{name}")(view(BOTH, [1.0, 0.0], [0, 0]))
    assert loss.value_N[1] == alone.value_N[0]
    (gradient,) = torch.autograd.grad(loss.value_N.sum(), given.logprob_N)
    assert gradient[:5].tolist() == [0] * 5 and gradient.isfinite().all()


@pytest.mark.parametrize("name", ["ipo", "simpo", "kto"])
def test_a_set_with_one_side_is_no_pair(name: str) -> None:
    loss = built(f"pairs.{name}")(view(BOTH[:1], [1.0], [0]))
    assert loss.value_N.tolist() == [0] and loss.metrics["pairs"].tolist() == [0]


def test_an_answer_of_many_is_in_every_pair_and_weighs_as_its_set() -> None:
    """Rewards 2 > 1 > 0: three pairs, whose mean is the value."""
    said, beta = [[-1.0], [-2.0], [-4.0]], 0.5
    given = replace(view(said, [2.0, 1.0, 0.0], [0, 0, 0]), weight_N=torch.tensor([1.0, 2.0, 3.0]))
    loss = built("pairs.ipo", beta=beta)(given)
    assert loss.value_N.item() == pytest.approx(sum((gap - 1) ** 2 for gap in (1, 3, 2)) / 3)
    assert loss.weight_N.item() == 2.0 and loss.metrics["pairs"].tolist() == [3]


def kto_gradient(variant: str) -> torch.Tensor:
    """Both gain 0.5, so what either is held against is above 0."""
    given = view([[-1.0], [-2.0]], [1.0, 0.0], [0, 0], [[-1.5], [-2.5]])
    loss: Loss = built("pairs.kto", beta=1.0, variant=variant)(given)
    return torch.autograd.grad(loss.value_N.sum(), given.logprob_N)[0]


def test_what_kto_is_held_against_is_not_learnt() -> None:
    slope = sigmoid(0.0) * (1 - sigmoid(0.0)) / 2
    assert kto_gradient("paper").tolist() == pytest.approx([-slope, slope])
    assert kto_gradient("code").tolist() == pytest.approx([-2 * slope, 2 * slope])


def test_kto_looks_at_the_whole_step() -> None:
    """A set is held against what the other sets' answers gained, too."""
    assert find("objective", "pairs.kto").traits["whole"]
    alone = view(BOTH, [1.0, 0.0], [0, 0])
    beside = view([*BOTH, [20.0], [10.0]], [1.0, 0.0, 1.0, 0.0], [0, 0, 1, 1])
    values = [built("pairs.kto", beta=0.1)(given).value_N[0].item() for given in (alone, beside)]
    # Better answers gain (-6 + 20) / 2 on average, worse ones (-4 + 10) / 2.
    assert values[1] == pytest.approx(((1 - sigmoid(-0.9)) + (1 - sigmoid(1.1))) / 2) != values[0]


def test_an_answer_on_which_both_agree_more_than_usual_has_a_smaller_alpha() -> None:
    """Of two answers of a side the mean gap is c: 0.1 and 0.3 apart, alpha is (1 - 0.9 * 2, 1 - 0.9 * 2 / 3), cut."""
    p = torch.tensor([0.5, 0.6, 0.7, 0.6], dtype=torch.float64)
    q = torch.tensor([0.4, 0.5, 0.4, 0.3], dtype=torch.float64)
    two = [torch.stack([x, 1 - x], 1).log() for x in (p, q)]
    method = find("objective", "pairs.skewed")
    given = View(
        student_NV=two[1],
        teacher=DenseTeacher(two[0]),
        target_N=torch.zeros(4, dtype=torch.int64),
        example_N=torch.tensor([0, 0, 1, 2]),
        length_B=torch.tensor([2, 1, 1]),
        set_B=torch.zeros(3, dtype=torch.int64),
        reward_B=torch.tensor([0.0, 0.0, 1.0]),
        weight_N=torch.ones(4, dtype=torch.float64),
    )
    for base, worse in ((0.1, [0.01, 0.01, 0.1]), (0.6, [0.2, 0.2, 0.6])):
        objective = method.factory(alpha=base)
        view = first_look(objective, given, method.traits["reads"])
        alpha_N1 = view.settled_NS
        # The better answer is alone on its side, so its gap is the usual one.
        torch.testing.assert_close(alpha_N1[:, 0], torch.tensor([*worse, base]).double(), rtol=1e-3, atol=1e-4)
        for at, alpha in ((0, worse[0]), (2, worse[2]), (3, base)):
            plain = find("objective", "divergence.pair").factory(alpha=alpha)(given).value_N[at]
            torch.testing.assert_close(objective(view).value_N[at], plain, rtol=1e-3, atol=1e-6)
