"""What is weighed in training: the controller's gradient, the closed form, and where a teacher is blurred."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.core.methods import find
from pipeline.kinds.objective import DenseTeacher, Loss, View, first_look


def made(name: str, **arguments: Any) -> Any:
    method = find("objective", f"schedule.{name}")
    return method.factory(**method.arguments.model_validate(arguments).model_dump())


def valued(objective: Any, name: str, view: View) -> Loss:
    return objective(first_look(objective, view, find("objective", f"schedule.{name}").traits["reads"]))


def world(n: int, v: int, d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, View]:
    """States, a head, and a view of what it makes of them."""
    draw = torch.Generator().manual_seed(seed)
    states, head, truth = (
        torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in ((n, d), (v, d), (v, d))
    )
    view = View(
        student_NV=states @ head.t(),
        target_N=(states @ truth.t()).argmax(1),
        teacher=DenseTeacher(states @ truth.t()),
        features={"last": states},
        example_N=torch.arange(n) // 2,
        weight_N=torch.ones(n, dtype=torch.float64),
    )
    return states, head, view


def test_the_upper_gradient_is_that_of_a_step_of_the_head() -> None:
    """By alpha of each place: the other examples' mean cross-entropy after a small step on that place."""
    torch.manual_seed(0)
    states, head, view = world(6, 9, 4)
    objective, tau, step = made("tgeo"), 1.5, 1e-6
    settled = first_look(objective, view, find("objective", "schedule.tgeo").traits["reads"]).settled_NS
    assert isinstance(view.teacher, DenseTeacher)
    p = (view.teacher.logits_NV / tau).softmax(1)
    for n in range(6):
        others = view.example_N != view.example_N[n]
        after = []
        for alpha in (0.0, 1.0):
            weights = head.clone().requires_grad_()
            logits = states[n] @ weights.t()
            soft = tau**2 * torch.nn.functional.kl_div((logits / tau).log_softmax(0), p[n], reduction="sum")
            hard = -logits.log_softmax(0)[view.target_N[n]]
            (moved,) = torch.autograd.grad(alpha * soft + (1 - alpha) * hard, weights)
            logits = states[others] @ (head - step * moved).t()
            after.append(torch.nn.functional.cross_entropy(logits, view.target_N[others]).item())
        assert settled[n, 0].item() == pytest.approx((after[1] - after[0]) / step, rel=1e-3)


def test_sums_in_buckets_stand_for_the_rows_on_average() -> None:
    _, _, view = world(40, 500, 6)
    reads = find("objective", "schedule.tgeo").traits["reads"]
    exact, sketched = (first_look(made("tgeo", buckets=b), view, reads).settled_NS[:, 0] for b in (500, 64))
    assert torch.corrcoef(torch.stack([exact, sketched]))[0, 1] > 0.8


def test_the_controller_trusts_a_broken_teacher_less() -> None:
    """Half of the labels are wrong, and the teacher is right, but at a third of the places: there alpha falls."""
    torch.manual_seed(0)
    states, head, view = world(240, 8, 8, seed=1)
    broken = torch.arange(240) % 10 < 3
    assert isinstance(view.teacher, DenseTeacher)
    draw = torch.Generator().manual_seed(3)
    wrong = torch.rand(240, generator=draw) < 0.45
    labels = torch.where(wrong, torch.randint(8, (240,), generator=draw), view.target_N)
    view = replace(view, target_N=labels, example_N=torch.arange(240) // 12)
    teacher = torch.where(broken[:, None], view.teacher.logits_NV.roll(1, 1), view.teacher.logits_NV)
    objective = made("tgeo")
    own = objective.modules({"last": 8, "outcomes": 8}, {}).double()
    weights = (head * 0).requires_grad_()
    optimizer = torch.optim.Adam([{"params": [weights], "lr": 0.02}, {"params": own.parameters(), "lr": 0.001}])
    before = [p.clone() for p in own.parameters()]
    for _ in range(200):
        optimizer.zero_grad()
        seen = replace(view, student_NV=states @ weights.t(), teacher=DenseTeacher(teacher), own=own)
        loss = valued(objective, "tgeo", seen)
        loss.value_N.mean().backward()
        optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, own.parameters(), strict=True))
    alpha = loss.metrics["alpha"]
    assert alpha[broken].mean() < alpha[~broken].mean() - 0.2


def test_the_closed_form_is_the_best_mixture() -> None:
    """The share of the truth that a grid finds; clipped, and given by hand where it is."""
    _, _, view = world(50, 5, 4)
    draw = torch.Generator().manual_seed(2)
    assert isinstance(view.teacher, DenseTeacher)
    f, g = (torch.randn(50, 5, generator=draw, dtype=torch.float64) + s * view.teacher.logits_NV for s in (0.4, 0.2))
    seen = replace(view, teacher=DenseTeacher(g), reference=DenseTeacher(f))
    share = valued(made("guidance"), "guidance", seen).metrics["truth"]
    truth = torch.nn.functional.one_hot(view.target_N, 5)
    grid = torch.linspace(0, 1, 1001, dtype=torch.float64)
    errors = [(a * f.softmax(1) + (1 - a) * g.softmax(1) - truth).square().sum() for a in grid]
    assert float(share[0]) == pytest.approx(float(grid[int(torch.stack(errors).argmin())]), abs=1e-3)
    assert (share == share[0]).all()
    same = valued(made("guidance"), "guidance", replace(seen, reference=DenseTeacher(g)))
    assert not same.metrics["truth"].any() and same.value_N.isfinite().all()
    fixed = valued(made("guidance", share=0.25), "guidance", seen)
    q = view.student_NV.softmax(1)
    expected = 0.25 * (q - truth).square().sum(1) + 0.75 * (q - g.softmax(1)).square().sum(1)
    torch.testing.assert_close(fixed.value_N, expected)


def test_soft_labels_of_ones_own_fall_with_rank_and_are_a_distribution() -> None:
    torch.manual_seed(0)
    _, _, view = world(6, 9, 4)
    for k in (1000, 4):
        objective = made("uskd", k=k)
        own = objective.modules({"last": 4, "outcomes": 9}, {}).double()
        weak = own(view.features["last"]).log_softmax(1)
        ids, labels = objective._labels(view, weak)
        torch.testing.assert_close(labels.sum(1), torch.ones(6, dtype=torch.float64))
        assert not labels[ids == view.target_N[:, None]].any()
        assert (labels.gt(0).sum(1) <= min(k, 8)).all() and (ids == view.target_N[:, None]).any(1).all() == (k > 8)
    settled = first_look(objective, view, find("objective", "schedule.uskd").traits["reads"]).settled_NS
    assert settled.mean().item() == pytest.approx(1)


def test_a_teacher_is_blurred_where_it_knows_by_heart() -> None:
    """The reference does not know it: less of the teacher's sureness is learnt there, and all of it elsewhere."""
    sure, unsure = torch.tensor([[9.0, 0, 0, 0]]), torch.zeros(1, 4)
    view = View(student_NV=torch.zeros(1, 4).requires_grad_(), target_N=torch.tensor([0]), weight_N=torch.ones(1))
    learnt = []
    for reference in (unsure, sure):
        seen = replace(view, teacher=DenseTeacher(sure), reference=DenseTeacher(reference))
        loss = made("swing")(seen)
        (gradient,) = torch.autograd.grad(loss.value_N.sum(), seen.student_NV)
        learnt.append(0.25 - float(gradient[0, 0]))
    assert learnt[0] < 0.7 and learnt[1] == pytest.approx(float(sure.softmax(1)[0, 0]), abs=1e-5)


def test_taid_without_a_rate_rises_with_the_steps_alone() -> None:
    from pipeline.kinds.objective import Reduced, Step

    taid = made("taid", start=0.4, rate=0.0)
    for number in range(10):
        taid.update(Step(number, 10, 0, 1), Reduced(10.0 - number, 1, {}))
        assert taid.t == pytest.approx(max(0.4, 0.4 + 0.6 * number / 10) if number else 0.4)
