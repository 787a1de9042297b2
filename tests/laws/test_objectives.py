"""Laws that every objective obeys. They run on all that are found, so a new one is under them by existing."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import Refused
from pipeline.kinds.objective import Loss, Objective, TopKTeacher, View
from pipeline.laws import objective as laws
from pipeline.laws.objective import Case, K, Law, N, V, cases, store
from pipeline.training.ranks import over_ranks
from pipeline.training.reduce import reduce, summarise
from tests.laws.ours import held, named, ours

CASES = [case for method in ours("objective") for case in cases(method)]


@pytest.mark.parametrize(("law", "case"), held("objective"), ids=named)
def test_law(law: Law, case: Case) -> None:
    law(case)


def dense(of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Objective:
    return lambda v: Loss(of(v.teacher.logits_NV.log_softmax(1), v.student_NV.log_softmax(1)), v.weight_N)


def stored(of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Objective:
    """On the K stored tokens alone."""
    return lambda v: Loss(
        of(v.teacher.logprobs_NK, v.student_NV.log_softmax(1).gather(1, v.teacher.ids_NK.long())), v.weight_N
    )


def sum_p(log_p: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    return (log_p.exp() * ratio).sum(1)


def counting() -> Objective:
    calls: list[View] = []

    def loss(view: View) -> Loss:
        calls.append(view)
        return dense(lambda p, q: sum_p(p, p - q) * len(calls))(view)

    return loss


def scaling_in_place(view: View) -> Loss:
    view.teacher.logits_NV.mul_(0.5)
    return dense(lambda p, q: sum_p(p, p - q))(view)


def squared_logits(view: View) -> Loss:
    return Loss((view.student_NV - view.teacher.logits_NV).pow(2).sum(1), view.weight_N)


BROKEN: dict[str, tuple[Law, str, Objective]] = {
    "cross-entropy": (laws.zero_at_itself_and_never_negative, "dense", dense(lambda p, q: -sum_p(p, q))),
    "weights left out": (laws.zero_at_itself_and_never_negative, "dense", dense(lambda p, q: (p - q).sum(1))),
    "truncated": (laws.zero_at_itself_and_never_negative, "topk", stored(lambda p, q: sum_p(p, p - q))),
    "renormalised": (laws.top_k_grows_to_dense_from_below, "topk", stored(lambda p, q: sum_p(p.log_softmax(1), p - q))),
    "raw logits": (laws.shift_of_logits_changes_nothing, "dense", squared_logits),
    "a scalar": (laws.one_value_and_weight_per_item, "dense", dense(lambda p, q: sum_p(p, p - q).mean())),
    "averaged": (laws.batch_is_the_sum_of_its_splits, "dense", dense(lambda p, q: sum_p(p, p - q) / len(p))),
    "order": (laws.order_of_tokens_is_irrelevant, "dense", dense(lambda p, q: sum_p(p, p - q).cumsum(0))),
    "half a gradient": (laws.gradient_is_the_derivative, "dense", dense(lambda p, q: sum_p(q.detach(), q - p))),
    "log of softmax": (laws.finite_at_the_extremes, "dense", dense(lambda p, q: sum_p(p, p - q.exp().log()))),
    "memory": (laws.loss_moves_no_state, "dense", counting()),
    "in place": (laws.loss_moves_no_state, "dense", scaling_in_place),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_objective_breaks_a_law(fault: str) -> None:
    """The laws can fail: each of these faults is caught by the law that is there for it."""
    law, teacher, broken = BROKEN[fault]
    sound = next(c for c in CASES if c.name == "divergence.forward" and c.teacher == teacher and not c.arguments)
    with pytest.raises(AssertionError):
        law(replace(sound, objective=broken))


def test_a_stored_tail_too_small_for_a_float_is_not_impossible() -> None:
    """A sure teacher's tail underflows to 0, and the student still has mass there."""
    zero = torch.zeros(1)
    sure = TopKTeacher(torch.tensor([[3, 1]]), torch.tensor([[-1e-7, -16.0]]), zero, target_N=zero - 30)
    for case in CASES:
        filled = case.method.arguments.model_validate(case.arguments).model_dump()
        if case.teacher == "topk" and "student_NV" in case.traits["reads"] and filled.get("temperature", 1) == 1:
            view = replace(case.view(n=1, dtype=torch.float32), teacher=sure)
            assert case(view).value_N.abs().item() < 100


def test_another_temperature_than_the_stored_one_is_refused() -> None:
    for method in ours("objective"):
        if "temperature" in method.arguments.model_fields and method.traits["teacher"] == "any":
            case = next(c for c in CASES if c.name == method.name and c.teacher == "topk" and not c.arguments)
            stored = method.arguments.model_fields["temperature"].default
            with pytest.raises(Refused, match=f"temperature: {stored:g}"):
                method.factory(temperature=2.0)(case.view())
            with pytest.raises(Refused, match="have none"):
                method.factory()(replace(case.view(), teacher=None))
            view = case.view()
            through_float32 = store(torch.randn(N, V), K, torch.tensor(0.7).item(), view.target_N)
            through_float32 = replace(through_float32, tails={1.0: through_float32.tail_N})
            assert len(method.factory(temperature=0.7)(replace(view, teacher=through_float32)).value_N) == N


def test_a_step_is_the_same_however_it_is_cut() -> None:
    value, weight = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 1.0, 0.5])
    whole = [Loss(value, weight, {"sure": torch.tensor([0.0, 1.0, 1.0])})]
    cut = [
        Loss(value[i], weight[i], {"sure": whole[0].metrics["sure"][i]}) for i in (slice(1), slice(1, 3), slice(3, 3))
    ]
    assert reduce(whole, 10) == reduce(cut, 10) == sum(reduce([loss], 10) for loss in cut) == 0.5
    assert summarise(whole, 10) == summarise(cut, 10)
    assert summarise(cut, 10).metrics == {"sure": pytest.approx(2 / 3)}
    assert reduce([], 0) == 0 and summarise([], 0).value == 0


def _rank(rank: int, store: str, results: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    loss = Loss(torch.arange(3.0) if rank else torch.ones(1), torch.ones(3 if rank else 1))
    normaliser = over_ranks({"place": len(loss.value_N)})["place"]
    results.put((normaliser, reduce([loss], normaliser).item(), summarise([loss], normaliser)))
    torch.distributed.destroy_process_group()


def test_a_step_is_the_same_over_ranks(tmp_path: Path) -> None:
    """Two processes with one and three tokens: their shares add up to the mean of all four, which both report."""
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    ranks = [fork.Process(target=_rank, args=(rank, str(tmp_path / "store"), results)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    (n_a, share_a, summary_a), (n_b, share_b, summary_b) = results.get(), results.get()
    assert n_a == n_b == summary_a.items == 4
    assert share_a + share_b == summary_a.value == summary_b.value == 1.0
