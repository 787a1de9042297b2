"""Objectives of what stands there: parts of a prompt that count alike, and rationales that are learnt or unlearnt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.core.methods import find
from pipeline.kinds.objective import View


def made(name: str, **arguments: Any) -> Any:
    method = find("objective", f"supervised.{name}")
    return method.factory(**method.arguments.model_validate(arguments).model_dump())


def test_an_answer_counts_as_much_as_its_long_rationale() -> None:
    logits = torch.zeros(6, 4)
    view = View(
        student_NV=logits,
        target_N=torch.zeros(6, dtype=torch.long),
        example_N=torch.tensor([0, 1, 1, 1, 1, 1]),
        length_B=torch.tensor([1, 5]),
        weight_N=torch.ones(6),
    )
    value = made("together")(view).value_N
    assert float(value[0]) == pytest.approx(float(value[1:].sum())) == pytest.approx(float(torch.tensor(4.0).log()))


@pytest.fixture
def rationales() -> View:
    """Two right ones and two wrong ones of a prompt, at distances 1, 2, 1.5 and 4; one wrong one of another, at 2."""
    far = torch.tensor([1.0, 2.0, 1.5, 4.0, 2.0])
    return View(
        logprob_N=-far.repeat_interleave(2),
        example_N=torch.arange(5).repeat_interleave(2),
        length_B=torch.full((5,), 2),
        set_B=torch.tensor([0, 0, 0, 0, 1]),
        reward_B=torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]),
        weight_N=torch.tensor([0.9, 1.0, 0.5, 1.0, 0.6]).repeat_interleave(2),
    )


def test_the_nearest_right_one_is_learnt_and_a_wrong_one_up_to_the_margin(rationales: View) -> None:
    """A negative beyond the margin moves nothing; one within it is pushed away, by its weight."""
    loss = made("contrastive")(rationales)
    # The furthest negative of the first prompt lies at 4, beyond the margin; that of the second at 2.
    assert loss.value_N.tolist() == pytest.approx([0.9 * 1.0, 0.2 * 0.6 * 1.0])
    nearest = made("contrastive", negatives="min", beta=0.5)(rationales)
    assert nearest.value_N.tolist() == pytest.approx([0.9 * 1.0 + 0.5 * 0.5 * 1.5, 0.5 * 0.6 * 1.0])


def test_who_is_moved_and_whither(rationales: View) -> None:
    logprob = rationales.logprob_N.clone().requires_grad_()
    loss = made("contrastive", negatives="min")(replace(rationales, logprob_N=logprob))
    (gradient,) = torch.autograd.grad((loss.value_N * loss.weight_N).sum(), logprob)
    by_example = gradient.view(5, 2).sum(1)
    assert by_example[0] < 0 and by_example[2] > 0 and by_example[4] > 0
    assert by_example[1] == by_example[3] == 0


def test_rows_without_a_reward_and_sides_without_rows_count_nothing(rationales: View) -> None:
    nothing = made("contrastive")(replace(rationales, reward_B=torch.full((5,), torch.nan)))
    assert nothing.value_N.tolist() == [0, 0]
    right = made("contrastive")(replace(rationales, reward_B=torch.ones(5)))
    assert right.value_N.tolist() == pytest.approx([0.9, 0.6 * 2.0])
