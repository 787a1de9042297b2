"""Graphs on logits: what they do not see, and that they can be learnt."""

from __future__ import annotations

from typing import Any

import torch

from pipeline.core.methods import find
from pipeline.kinds.objective import Loss, OtherTeacher, View, first_look

SIZES = [3, 5]


def loss_of(student_NV: torch.Tensor, teacher_NU: torch.Tensor, top: int = 8) -> Loss:
    """Two answers of three and five places."""
    method = find("objective", "graph.on_logits")
    objective: Any = method.factory(top=top)
    none_N = torch.zeros(sum(SIZES))
    view = View(
        student_NV=student_NV,
        other=OtherTeacher(teacher_NU, none_N, none_N, torch.full((teacher_NU.shape[1],), -1)),
        example_N=torch.arange(2).repeat_interleave(torch.tensor(SIZES)),
        weight_N=torch.ones(sum(SIZES)),
    )
    return objective(first_look(objective, view, method.traits["reads"]))


def logits(width: int, seed: int) -> torch.Tensor:
    return torch.randn(sum(SIZES), width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def graph_distance(student_NV: torch.Tensor, teacher_NU: torch.Tensor, top: int) -> torch.Tensor:
    """The formula as it stands: outer products, the means of their rows, sorted and held against each other."""

    def features(logits_NV: torch.Tensor) -> torch.Tensor:
        z = logits_NV.sort(1, descending=True)[0][:, :top]
        z = z - z[:, :1]
        z = z / z.square().mean(1, keepdim=True).sqrt()
        return torch.einsum("ni,nj->ij", z, z).mean(1) / len(z)

    pairs = zip(student_NV.split(SIZES), teacher_NU.split(SIZES), strict=True)
    return torch.stack([(features(q).sort()[0] - features(p).sort()[0]).abs().sum() for q, p in pairs])


def test_an_answers_places_add_up_to_the_distance_of_its_graphs() -> None:
    student, teacher = logits(12, 0).requires_grad_(), logits(17, 1)
    loss, expected = loss_of(student, teacher), graph_distance(student, teacher, 8)
    found = torch.stack([each.sum() for each in loss.value_N.split(SIZES)])
    torch.testing.assert_close(found, expected)
    (own,) = torch.autograd.grad(found.sum(), student, retain_graph=True)
    torch.testing.assert_close(own, torch.autograd.grad(expected.sum(), student)[0])


def test_it_is_zero_at_itself_however_outcomes_are_numbered() -> None:
    student = logits(12, 0)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    for teacher in (student, 5 * student[:, order] + 3):
        sums = [each.sum() for each in loss_of(student, teacher).value_N.split(SIZES)]
        assert torch.stack(sums).abs().max() < 1e-12


def test_fewer_outcomes_than_are_looked_at_and_constant_rows_are_finite() -> None:
    student = torch.zeros(sum(SIZES), 5, dtype=torch.float64, requires_grad=True)
    loss = loss_of(student, logits(7, 1), top=64)
    (gradient,) = torch.autograd.grad(loss.value_N.sum(), student)
    assert loss.value_N.isfinite().all() and gradient.isfinite().all()


def test_it_falls_as_it_is_learnt() -> None:
    student, teacher = logits(12, 0).requires_grad_(), logits(17, 1)
    optimizer, curve = torch.optim.Adam([student], 0.02), []
    for _ in range(200):
        value = loss_of(student, teacher).value_N.sum()
        curve.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert curve[-1] < 0.1 * curve[0]
