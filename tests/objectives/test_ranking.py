"""Rankings: the order that is learnt, what a truncation leaves, and how many outcomes stand before a knee."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from pipeline.core.methods import find
from pipeline.errors import Refused
from pipeline.kinds.objective import DenseTeacher, View
from pipeline.laws.objective import store
from pipeline.objectives.ranking import knee

V = 10


def made(name: str, **arguments: Any) -> Any:
    method = find("objective", f"ranking.{name}")
    return method.factory(**method.arguments.model_validate(arguments).model_dump())


def view(student: torch.Tensor, teacher: Any, target: int = 3) -> View:
    return View(
        student_NV=student,
        teacher=teacher,
        target_N=torch.full((len(student),), target),
        weight_N=torch.ones(len(student)),
    )


@pytest.fixture
def teacher() -> torch.Tensor:
    return torch.randn(1, V, generator=torch.Generator().manual_seed(3)) * 2


def listed(scores: torch.Tensor, teacher: torch.Tensor, target: int) -> float:
    """The formula, rank by rank."""
    order = [target, *(i for i in teacher.argsort(descending=True).tolist() if i != target)]
    p, total = teacher.softmax(0), 0.0
    for rank, outcome in enumerate(order):
        total += float(p[outcome] * (scores[order[rank:]].logsumexp(0) - scores[outcome]))
    return total


def test_pld_is_its_formula_and_truncation_ranks_the_rest_as_one(teacher: torch.Tensor) -> None:
    student = torch.randn(1, V, generator=torch.Generator().manual_seed(4))
    for target in range(V):
        given = view(student, DenseTeacher(teacher), target)
        whole = made("pld", k=None)(given).value_N.item()
        assert whole == pytest.approx(listed(student[0], teacher[0], target), rel=1e-4)
        by_k = [made("pld", k=k)(given).value_N.item() for k in range(1, V + 1)]
        assert by_k[-1] == by_k[-2] == pytest.approx(whole)
        # Every rank that is told apart adds what it costs.
        assert all(less <= more + 1e-5 for less, more in pairwise(by_k[1:]))


def test_pld_learns_the_target_first_and_then_the_teachers_order(teacher: torch.Tensor) -> None:
    student = torch.zeros(1, V).requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.05)
    for _ in range(1500):
        optimizer.zero_grad()
        made("pld", k=None, temperature=4.0)(view(student, DenseTeacher(teacher))).value_N.sum().backward()
        optimizer.step()
    order = student[0].argsort(descending=True).tolist()
    rest = [i for i in teacher[0].argsort(descending=True).tolist() if i != 3]
    # Two last outcomes of next to no probability are learnt late.
    assert order[0] == 3 and order[1:7] == rest[:6]


def test_a_stored_target_that_is_not_among_the_k_has_no_weight(teacher: torch.Tensor) -> None:
    target = int(teacher.argmin())
    student = torch.randn(1, V, generator=torch.Generator().manual_seed(5)).requires_grad_()
    loss = made("pld", k=4)(view(student, store(teacher, 4, 1.0), target))
    (gradient,) = torch.autograd.grad(loss.value_N.sum(), student)
    assert loss.value_N.isfinite().all() and gradient[0, target] == 0


def test_differences_hang_on_differences_alone(teacher: torch.Tensor) -> None:
    student = torch.randn(1, V, generator=torch.Generator().manual_seed(6))
    for name in ("teacher_led", "bild", "dbild"):
        loss = made(name)
        assert loss(view(student, DenseTeacher(teacher))).value_N > 1e-3
        assert loss(view(teacher + 5, DenseTeacher(teacher))).value_N.abs() < 1e-6
    top = teacher.topk(8).indices[0]
    same = student.clone()
    same[0, top] = teacher[0, top] - 7
    assert made("teacher_led", k=8)(view(same, DenseTeacher(teacher))).value_N.abs() < 1e-6


def test_a_stored_temperature_does_not_matter_to_differences(teacher: torch.Tensor) -> None:
    student = torch.randn(1, V, generator=torch.Generator().manual_seed(7))
    seen = [
        made("teacher_led")(view(student, each)).value_N for each in (DenseTeacher(teacher), store(teacher, 8, 2.0))
    ]
    torch.testing.assert_close(seen[0], seen[1])
    with pytest.raises(Refused, match="temperature: 2"):
        made("pld")(view(student, store(teacher, 8, 2.0)))


def test_a_peak_has_a_nearer_knee_than_a_slope() -> None:
    slope = torch.linspace(1, 0, 16)
    peak = (-torch.arange(16.0)).exp()
    shoulder = torch.cat([torch.full((5,), 9.0), torch.zeros(11)]) - torch.arange(16) * 1e-3
    found = knee(torch.stack([peak, shoulder, slope])).tolist()
    assert found[0] <= 4 and found[1] == 5 and found[2] == 2
    assert knee(torch.zeros(1, 16)).tolist() == [2]


@pytest.mark.parametrize("name", ["hinge", "logistic"])
def test_pairs_are_content_with_a_student_that_keeps_the_teachers_order(name: str, teacher: torch.Tensor) -> None:
    right, wrong = (made(name)(view(sign * teacher * 3, DenseTeacher(teacher))).value_N for sign in (1, -1))
    assert right < 0.2 * wrong
    assert made("hinge")(view(teacher, DenseTeacher(teacher))).value_N.abs() < 1e-6
