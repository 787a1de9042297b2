"""Lists of answers: where they settle, and lists that say nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.objectives.test_pairs import NAN, built, view

REWARDS = [0.9, 0.1, 0.4, 0.6, 0.2, 0.3]


def settled(anchor: torch.Tensor, tau: float, **arguments: Any) -> torch.Tensor:
    """A policy over six answers of a token each, after a few hundred steps."""
    logits = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.05)
    objective = built("listwise.adpo", tau=tau, **arguments)
    given = view([[0.0]] * 6, REWARDS, [0] * 6)
    for _ in range(600):
        loss = objective(replace(given, logprob_N=logits.log_softmax(0), reference_N=anchor.log()))
        optimizer.zero_grad()
        loss.value_N.sum().backward()
        optimizer.step()
    return logits.detach().softmax(0)


def target() -> torch.Tensor:
    rewards = torch.tensor(REWARDS, dtype=torch.float64)
    return ((rewards - rewards.mean()) / rewards.std() / 0.5).softmax(0)


@pytest.mark.parametrize("tau", [1.0, 0.5])
@pytest.mark.parametrize("even", [True, False])
def test_the_policy_settles_where_the_paper_says(tau: float, even: bool) -> None:
    """At anchor * target ** tau, so at the target itself beside an even anchor and at tau 1."""
    anchor = torch.full((6,), 1 / 6, dtype=torch.float64)
    if not even:
        anchor = torch.tensor([0.3, 0.1, 0.1, 0.2, 0.2, 0.1], dtype=torch.float64)
    expected = anchor * target() ** tau
    expected /= expected.sum()
    assert (expected * (expected / settled(anchor, tau)).log()).sum() < 1e-3


def test_the_best_alone_becomes_certain_and_a_ranking_is_kept() -> None:
    even = torch.full((6,), 1 / 6, dtype=torch.float64)
    assert settled(even, 1.0, target="best")[0] > 0.9
    ranked = settled(even, 1.0, target="ranking")
    assert ranked.argsort().tolist() == torch.tensor(REWARDS).argsort().tolist()


def test_plackett_and_luce_of_ties_asks_for_no_order_among_them() -> None:
    given = view([[0.0], [0.0], [-3.0]], [1.0, 1.0, 0.0], [0, 0, 0])
    value = built("listwise.adpo", tau=1.0, target="ranking")(given).value_N.item()
    assert value == pytest.approx(math.log(2 + math.exp(-3)))


@pytest.mark.parametrize("which", ["soft", "best", "ranking"])
@pytest.mark.parametrize("rewards", [[1.0, 1.0], [NAN, NAN], [NAN, 0.5]])
def test_a_set_without_two_different_rewards_is_zero_and_counted(which: str, rewards: list[float]) -> None:
    given = view([[-1.0], [-2.0], [-1.0], [-3.0]], [*rewards, 1.0, 0.0], [0, 0, 1, 1])
    loss = built("listwise.adpo", target=which)(given)
    assert loss.value_N[0] == 0 < loss.value_N[1] and loss.metrics["compared"].tolist() == [0, 1]
    (gradient,) = torch.autograd.grad(loss.value_N.sum(), given.logprob_N)
    assert gradient[:2].tolist() == [0, 0] and gradient.isfinite().all() and gradient[2] < 0


def test_an_answer_without_a_reward_is_left_out() -> None:
    three = built("listwise.adpo")(view([[-1.0], [-2.0], [-3.0]], [1.0, 0.0, NAN], [0, 0, 0]))
    two = built("listwise.adpo")(view([[-1.0], [-2.0]], [1.0, 0.0], [0, 0]))
    assert three.value_N.item() == pytest.approx(two.value_N.item())


def test_a_long_answer_weighs_as_a_short_one_but_in_the_code() -> None:
    short, long = [[-1.0], [-2.0]], [[-1.0] * 4, [-2.0]]
    for variant, same in (("paper", True), ("code", False)):
        objective = built("listwise.adpo", variant=variant)
        values = [objective(view(said, [1.0, 0.0], [0, 0])).value_N.item() for said in (short, long)]
        assert (values[0] == pytest.approx(values[1])) is same


def test_tau_follows_the_targets_entropy_up_in_the_paper_and_down_in_the_code() -> None:
    given = view([[-1.0], [-2.0]], [1.0, 0.0], [0, 0])
    plain, up, down = (
        built("listwise.adpo", variant=variant, adaptive=share)(given).value_N.item()
        for variant, share in (("paper", 0.0), ("paper", 0.5), ("code", 0.5))
    )
    # The better answer is the likelier one, and a higher tau evens out how likely they are.
    assert down < plain < up
