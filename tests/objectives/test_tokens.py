"""Choices of tokens: who is chosen, in which direction a ranking is learnt, and what is moved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.core.methods import find
from pipeline.kinds.objective import DenseTeacher, Loss, View, first_look

V = 12


def made(name: str, **arguments: Any) -> Any:
    method = find("objective", name)
    return method.factory(**method.arguments.model_validate(arguments).model_dump())


def look(name: str, view: View, **arguments: Any) -> tuple[Loss, torch.Tensor]:
    """The loss of a view, and what was settled for it."""
    objective = made(name, **arguments)
    seen = first_look(objective, view, find("objective", name).traits["reads"])
    return objective(seen), seen.settled_NS


def view(n: int, seed: int = 0) -> View:
    draw = torch.Generator().manual_seed(seed)
    student, teacher, reference = (torch.randn(n, V, generator=draw) * 2 for _ in range(3))
    return View(
        student_NV=student,
        teacher=DenseTeacher(teacher),
        reference=DenseTeacher(reference),
        example_N=torch.zeros(n, dtype=torch.long),
        weight_N=torch.ones(n),
    )


def test_adaspec_chooses_what_the_reference_could_learn() -> None:
    """It learnt half of the places; on the others it is what the student is."""
    n = 200
    given = view(n)
    learnable = torch.arange(n) < n // 2
    assert isinstance(given.teacher, DenseTeacher)
    near = torch.where(learnable[:, None], given.teacher.logits_NV, given.student_NV)
    loss, settled = look("tokens.adaspec", replace(given, reference=DenseTeacher(near)), share=0.4)
    chosen = settled[:, 0] > 0
    assert chosen.sum() == 80 and learnable[chosen].float().mean() > 0.95
    plain = torch.nn.functional.kl_div(
        given.student_NV.log_softmax(1), given.teacher.logits_NV.log_softmax(1), reduction="none", log_target=True
    ).sum(1)
    assert loss.value_N.mean().item() == pytest.approx(plain[chosen].mean().item(), rel=1e-5)


@pytest.mark.parametrize("name", ["tokens.adaspec", "tokens.indirect", "tokens.entropy"])
def test_one_place_is_chosen_at_least_and_none_of_none(name: str) -> None:
    assert look(name, view(1), share=0.1)[1].tolist() == [[1]]
    assert look(name, view(0))[0].value_N.shape == (0,)


def test_the_indirect_part_learns_the_teachers_order() -> None:
    """The released form learns the reverse of it."""
    given = view(1)
    student = torch.zeros(1, V).requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.05)
    assert isinstance(given.teacher, DenseTeacher)
    for _ in range(300):
        optimizer.zero_grad()
        look("tokens.indirect", replace(given, student_NV=student), k=V)[0].value_N.sum().backward()
        optimizer.step()
    assert student.argsort(1).tolist() == given.teacher.logits_NV.argsort(1).tolist()


def test_the_opener_is_the_beginning_of_each_example() -> None:
    """Of equal entropies an opener is a share of the places; a sure beginning makes it longer."""
    given = replace(view(15), student_NV=torch.zeros(15, V), example_N=torch.tensor([0] * 10 + [1] * 5))
    settled = look("tokens.indirect", given, share=0.2)[1][:, 0]
    assert (settled > 0).nonzero()[:, 0].tolist() == [0, 1, 10]
    assert settled.mean().item() == pytest.approx(1)
    given.student_NV[0, 0] = 50.0
    assert (look("tokens.indirect", given, share=0.2)[1][:, 0] > 0).nonzero()[:, 0].tolist() == [0, 1, 2, 10]


def test_the_gate_opens_where_the_student_is_less_sure() -> None:
    """It only weighs: at the same distance, a place counts more the less sure the student is beside its teacher."""
    logits = torch.randn(1, V, generator=torch.Generator().manual_seed(1))
    gates = []
    for scale in (0.5, 1.0, 2.0, 4.0):
        given = View(student_NV=logits, teacher=DenseTeacher(logits.roll(1, 1) * scale), weight_N=torch.ones(1))
        jsd = made("divergence.jsd", beta=0.9)(given).value_N
        gates.append((made("tokens.gated")(given).value_N / jsd).item())
    assert gates == sorted(gates) and 0 < gates[0] < 0.5 < gates[-1] < 1


def test_entropy_moves_the_least_sure_tenth_alone() -> None:
    given = view(20)
    student = given.student_NV.requires_grad_()
    loss, settled = look("tokens.entropy", given, share=0.1)
    loss.value_N.sum().backward()
    entropy = -(student.softmax(1) * student.log_softmax(1)).sum(1)
    highest = set(entropy.topk(2).indices.tolist())
    assert set((settled[:, 0] > 0).nonzero()[:, 0].tolist()) == highest
    assert student.grad is not None and set(student.grad.any(1).nonzero()[:, 0].tolist()) == highest
    lower = student.detach() - 0.1 * student.grad
    after = -(lower.softmax(1) * lower.log_softmax(1)).sum(1)
    assert all(after[i] < entropy[i] for i in highest)
