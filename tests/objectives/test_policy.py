"""Policy gradients: a bandit that learns, steps however they are cut, and groups that say nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pipeline.objectives.policy import later
from tests.objectives.test_pairs import NAN, built, view


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_what_is_later_is_of_the_same_answer(gamma: float) -> None:
    values, example = torch.arange(1.0, 12.0), torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 2, 2, 2])
    expected = [sum(gamma ** (j - i) * values[j] for j in range(i, 11) if example[j] == example[i]) for i in range(11)]
    torch.testing.assert_close(later(values, example, gamma), torch.stack(expected))


def test_the_papers_return_begins_after_the_token() -> None:
    """The last token has none; each other has the mean of what follows it."""
    given = view([[-1.0, -2.0, -3.0], [-1.0]], [NAN, NAN], [0, 1], [[-2.0, -1.0, -1.0], [0.0]])
    loss = built("policy.minillm", gamma=1.0, mixed=0.0, whitened=False)(given)
    worth = -torch.autograd.grad(loss.value_N.sum(), given.logprob_N)[0]
    assert worth.tolist() == [(1 + 2) / 2, 2, 0, 0]
    assert loss.metrics["reward"].tolist() == [-1, 1, 2, 1]


def test_what_a_teacher_helped_to_draw_counts_by_how_likely_the_student_was_to_draw_it() -> None:
    given = view([[-1.0, -1.0]], [NAN], [0], [[-1.0, -3.0]])
    plain, mixed = (
        built("policy.minillm", mixed=share, whitened=False, variant="code")(given).value_N for share in (0.0, 0.5)
    )
    q, p = torch.tensor(-1.0).exp(), torch.tensor([-1.0, -3.0]).exp()
    torch.testing.assert_close((mixed / plain)[1], (q / (q / 2 + p[1] / 2)).double())


@pytest.mark.parametrize("arguments", [{}, {"mixed": 0.0}])
def test_an_impossible_token_and_constant_rewards_are_finite(arguments: dict[str, float]) -> None:
    for reference in (-1e6, 1e6, -2.0):
        given = view([[-2.0, -2.0], [-2.0]], [NAN, NAN], [0, 1], [[reference] * 2, [reference]])
        loss = built("policy.minillm", **arguments)(given)
        (gradient,) = torch.autograd.grad(loss.value_N.sum(), given.logprob_N)
        assert gradient.isfinite().all() and loss.value_N.isfinite().all()


def test_a_bandit_of_two_modes_comes_to_one_of_the_teachers() -> None:
    """Its entropy falls, and so does its reverse KL: over single tokens the return is the token's own."""
    teacher = torch.tensor([4.0, -2.0, -2.0, 4.2, -2.0]).log_softmax(0)
    logits, draw = torch.zeros(5, requires_grad=True), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([logits], 0.05)
    objective = built("policy.minillm", mixed=0.0, variant="code")
    seen = []
    for _ in range(200):
        log_q = logits.log_softmax(0)
        taken = torch.multinomial(log_q.detach().exp(), 32, True, generator=draw)
        given = replace(
            view([[0.0]] * 32, [NAN] * 32, list(range(32))), logprob_N=log_q[taken], reference_N=teacher[taken]
        )
        optimizer.zero_grad()
        objective(given).value_N.mean().backward()
        optimizer.step()
        seen.append((log_q.exp() * (log_q - teacher)).sum().item())
    assert seen[-1] < 0.25 * seen[0] and sum(a < b for a, b in zip(seen, seen[20:], strict=False)) < 20


def test_an_answer_gains_by_what_it_is_above_its_group() -> None:
    given = view([[-1.0, -1.0], [-2.0], [-2.0]], [1.0, 0.0, 0.0], [0, 0, 0])
    loss = built("policy.group_relative", standardised=False)(given)
    (gradient,) = torch.autograd.grad(loss.value_N.sum(), given.logprob_N)
    torch.testing.assert_close(gradient * 3, torch.tensor([-1 / 3, -1 / 3, 1 / 3, 1 / 3], dtype=torch.float64))
    scaled = built("policy.group_relative", length="sum")(given)
    (by_sum,) = torch.autograd.grad(scaled.value_N.sum(), given.logprob_N)
    deviation = torch.tensor([1.0, 0.0, 0.0]).std().double()
    torch.testing.assert_close(by_sum * 3 * deviation, torch.tensor([-2, -2, 1, 1], dtype=torch.float64) / 3)


@pytest.mark.parametrize("rewards", [[1.0, 1.0], [NAN, NAN], [NAN, 1.0]])
def test_a_group_of_one_reward_is_zero_and_counted(rewards: list[float]) -> None:
    given = view([[-1.0], [-2.0], [-1.0], [-3.0], [-1.0]], [*rewards, 1.0, 0.0, 1.0], [0, 0, 1, 1, 2])
    loss = built("policy.group_relative")(given)
    assert loss.metrics["compared"].tolist() == [0, 1, 0] and loss.value_N[[0, 2]].tolist() == [0, 0]
    (gradient,) = torch.autograd.grad(loss.value_N.sum(), given.logprob_N)
    assert gradient.isfinite().all() and gradient.nonzero()[:, 0].tolist() == [2, 3]
