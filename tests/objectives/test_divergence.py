"""Divergences beyond their golden values: identities, bounds, and what a pair or a batch is."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from pipeline.core.methods import find
from pipeline.kinds.objective import DenseTeacher, Loss, View, first_look
from pipeline.laws.objective import store

N, V = 6, 11


def valued(name: str, view: View, **arguments: Any) -> Loss:
    method = find("objective", f"divergence.{name}")
    made = method.factory(**method.arguments.model_validate(arguments).model_dump())
    return made(first_look(made, view, method.traits["reads"]))


def gradient(name: str, view: View, **arguments: Any) -> torch.Tensor:
    student = view.student_NV.detach().requires_grad_()
    total = valued(name, replace(view, student_NV=student), **arguments).value_N.sum()
    return torch.autograd.grad(total, student)[0]


@pytest.fixture
def view() -> View:
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(N, V, generator=draw, dtype=torch.float64) * 2 for _ in range(2))
    return View(
        student_NV=student,
        teacher=DenseTeacher(teacher),
        target_N=torch.randint(V, (N,), generator=draw),
        weight_N=torch.ones(N, dtype=torch.float64),
    )


def test_normalised_by_place_variations_gradient_is_over_its_deviation(view: View) -> None:
    assert isinstance(view.teacher, DenseTeacher)
    p, q = view.teacher.logits_NV.softmax(1), view.student_NV.softmax(1)
    mean = (q * (p > q)).sum(1, keepdim=True)
    expected = gradient("tvd", view) / (mean * (1 - mean)).sqrt()
    torch.testing.assert_close(gradient("tvd_pp", view, statistics="position"), expected, rtol=1e-4, atol=1e-6)


def test_normalised_by_batch_places_count_by_how_far_they_are_from_its_mean(view: View) -> None:
    """One place alone is the same in both ways; a batch's statistics weigh all places alike."""
    one = replace(view, student_NV=view.student_NV[:1], teacher=view.teacher.at(slice(1)), weight_N=view.weight_N[:1])  # type: ignore[union-attr]
    torch.testing.assert_close(gradient("tvd_pp", one), gradient("tvd_pp", one, statistics="position"))
    ratio = gradient("tvd_pp", view) / gradient("tvd", view)
    assert ratio.std() < 1e-3 * ratio.mean()


def test_alpha_lies_between_the_two_kl(view: View) -> None:
    near = {at: valued("alpha", view, alpha=at).value_N for at in (1e-4, 0.5, 1 - 1e-4)}
    torch.testing.assert_close(near[1 - 1e-4], valued("forward", view).value_N, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(near[1e-4], valued("reverse", view).value_N, rtol=2e-3, atol=1e-3)
    assert isinstance(view.teacher, DenseTeacher)
    roots = view.teacher.logits_NV.softmax(1).sqrt() - view.student_NV.softmax(1).sqrt()
    torch.testing.assert_close(near[0.5], 2 * roots.square().sum(1))


def test_adaptive_goes_to_the_head_of_a_sure_teacher_and_sorts_a_long_head(view: View) -> None:
    assert isinstance(view.teacher, DenseTeacher)
    sure = replace(view, teacher=DenseTeacher(view.teacher.logits_NV * 50))
    flat = replace(view, student_NV=torch.zeros_like(view.student_NV))
    both = [valued(name, replace(flat, teacher=sure.teacher)).value_N for name in ("adaptive", "forward", "reverse")]
    share = (both[0] - both[2]) / (both[1] - both[2])
    # Half of |p - q| is at the head when it has all of the mass, and no less.
    assert (share > 0.49).all()
    even = torch.linspace(0, 1e-3, 200, dtype=torch.float64).repeat(2, 1)
    other = torch.randn(2, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p, q = even.softmax(1), other.softmax(1)
    order = p[0].argsort(descending=True, stable=True)
    head = order[p[0][order].cumsum(0) <= 0.5]
    gap = (p - q).abs()
    share = gap[:, head].sum(1) / gap.sum(1)
    seen = View(student_NV=other, teacher=DenseTeacher(even), weight_N=torch.ones(2))
    forward, reverse = (valued(name, seen).value_N for name in ("forward", "reverse"))
    assert len(head) > 64
    torch.testing.assert_close(valued("adaptive", seen).value_N, share * forward + (1 - share) * reverse)


def test_balanced_sharpens_an_unsure_student_and_spreads_a_sure_one(view: View) -> None:
    forward, reverse = (valued(name, view).value_N for name in ("forward", "reverse"))
    for scale, expected in ((1e-3, forward + 2 * reverse), (1.0, None)):
        seen = replace(view, student_NV=view.student_NV * scale)
        forward, reverse = (valued(name, seen).value_N for name in ("forward", "reverse"))
        if expected is not None:
            torch.testing.assert_close(valued("balanced", seen).value_N, forward + 2 * reverse)
    sure = replace(view, student_NV=view.student_NV * 40)
    forward, reverse = (valued(name, sure).value_N for name in ("forward", "reverse"))
    torch.testing.assert_close(valued("balanced", sure).value_N, 2 * forward + reverse)


def test_others_that_agree_up_to_a_constant_teach_nothing(view: View) -> None:
    """Non-target logits that differ by a number have no gradient, though the target's differs."""
    shifted = view.student_NV.clone() + 1.0
    shifted[torch.arange(N), view.target_N] -= 3.0
    seen = replace(view, teacher=DenseTeacher(shifted))
    hard = gradient("nkd", seen, gamma=0.0)
    torch.testing.assert_close(gradient("nkd", seen), hard, rtol=0, atol=1e-9)
    assert hard.abs().max() > 0.01


@pytest.mark.parametrize("name", ["nkd", "decoupled"])
def test_a_stored_teacher_says_of_the_target_what_a_live_one_does(view: View, name: str) -> None:
    """Also of one that is not among the K: what is lost is how the rest is spread, and never more than that."""
    assert isinstance(view.teacher, DenseTeacher)
    given = {"temperature": 1.0}
    dense = valued(name, view, **given).value_N
    kept = [replace(view, teacher=store(view.teacher.logits_NV, k, 1.0, view.target_N)) for k in range(1, V + 1)]
    values = [valued(name, each, **given).value_N for each in kept]
    torch.testing.assert_close(values[-1], dense)
    assert all((less <= more + 1e-9).all() for less, more in pairwise(values))
    # The target's own part does not hang on K at all.
    alone = {"gamma": 0.0} if name == "nkd" else {"beta": 1e-12}
    whole = valued(name, view, **given, **alone).value_N
    assert all(torch.allclose(valued(name, each, **given, **alone).value_N, whole) for each in kept)


def test_a_constant_row_over_its_deviation_is_even(view: View) -> None:
    flat = replace(view, student_NV=torch.full((N, V), 3.0, dtype=torch.float64))
    loss = valued("standardised", flat)
    assert loss.value_N.isfinite().all() and gradient("standardised", flat).isfinite().all()
    scaled = replace(view, student_NV=view.teacher.logits_NV * 7)  # type: ignore[union-attr]
    assert valued("standardised", scaled).value_N.abs().max() < 1e-12


def test_a_pair_has_two_sides_and_each_answer_its_own_mean(view: View) -> None:
    """Of three answers to one prompt the best is the teacher's; a prompt with one side counts nothing."""
    given = replace(
        view,
        example_N=torch.tensor([0, 0, 1, 2, 3, 3]),
        length_B=torch.tensor([2, 1, 1, 2]),
        set_B=torch.tensor([0, 0, 0, 1]),
        reward_B=torch.tensor([1.0, 0.0, 0.0, 1.0]),
    )
    skewed, reversed_ = (valued(f"skew_{name}", given).value_N for name in ("forward", "reverse"))
    # The skew reverse KL of the pair weighs the student by 1 - alpha, as that of this family does.
    loss = valued("pair", given, beta=0.5)
    expected = torch.cat([1.5 * skewed[:2] / 2, 0.5 * reversed_[2:4] / 2, torch.zeros(2, dtype=torch.float64)])
    torch.testing.assert_close(loss.value_N, expected)
    nothing = replace(given, reward_B=torch.full((4,), torch.nan))
    assert not valued("pair", nothing).value_N.any()


def test_trusted_outcomes_are_sharper_the_smaller_c(view: View) -> None:
    values = [valued("trusted", view, c=c).value_N.sum().item() for c in (1.0, 0.3, 0.1)]
    assert values == sorted(values)
    assert isinstance(view.teacher, DenseTeacher)
    same = replace(view, student_NV=view.teacher.logits_NV + 2)
    assert valued("trusted", same).value_N.abs().max() < 1e-12
