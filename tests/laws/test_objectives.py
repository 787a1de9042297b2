"""Laws that every objective obeys. They run on all that `plugins.available` finds, so a new one is covered at once."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.core import methods
from pipeline.errors import Refused
from pipeline.kinds.objective import DenseTeacher, Loss, Objective, Step, Teacher, TopKTeacher, View
from pipeline.training.reduce import over_ranks, reduce, summarise

N, V, K = 6, 9, 4
# Widths of the student's and the teacher's taps.
D, E = 5, 7
# What of a view a loss may be differentiated by, the first that a method reads.
LEARNT = ("student_NV", "logprob_N", "features")
# Arguments beside the defaults that reach other code of a method.
ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "supervised.cross_entropy": [{"label_smoothing": 0.2}],
    "divergence.forward": [{"temperature": 2.0, "times_tau_squared": True}],
    "divergence.jsd": [{"beta": 0.9}],
    "divergence.skew_reverse": [{"alpha": 0.5, "temperature": 0.5}],
    "feature.hidden": [{"distance": "cosine"}],
    "preference.dpo": [{"label_smoothing": 0.1, "beta": 0.5}],
}


@dataclass(frozen=True)
class Case:
    """A method with arguments, on one type of teacher."""

    name: str
    arguments: dict[str, Any]
    teacher: str
    objective: Objective
    traits: dict[str, Any]

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.arguments.items()), self.teacher])

    def __call__(self, view: View) -> Loss:
        return self.objective(view.restrict(self.traits["reads"]))

    @property
    def learnt(self) -> str:
        """The field that its loss is differentiated by."""
        return next(name for name in LEARNT if name in self.traits["reads"])

    def view(self, seed: int = 0, n: int = N, dtype: torch.dtype = torch.float64, scale: float = 2.0) -> View:
        """Random places, two of an example, two examples of a set, with another distribution and other states as the
        teacher's, in the second of three epochs."""
        draw = torch.Generator().manual_seed(seed)
        student, teacher = (torch.randn(n, V, generator=draw, dtype=dtype) * scale for _ in range(2))
        examples = (n + 1) // 2
        weight_B = torch.rand(examples, generator=draw, dtype=dtype) + 0.5
        view = View(
            student_NV=student,
            target_N=torch.randint(V - 2, (n,), generator=draw),
            logprob_N=-torch.rand(n, generator=draw, dtype=dtype) * scale,
            teacher=self.teach(teacher),
            reference_N=-torch.rand(n, generator=draw, dtype=dtype) * scale,
            features={"last": torch.randn(n, D, generator=draw, dtype=dtype)},
            teacher_features={"last": torch.randn(n, E, generator=draw, dtype=dtype)},
            example_N=torch.arange(n) // 2,
            weight_N=weight_B[torch.arange(n) // 2],
            set_B=torch.arange(examples) // 2,
            reward_B=torch.rand(examples, generator=draw, dtype=dtype),
            step=Step(4, 12, 1, 3),
        )
        if hasattr(self.objective, "modules"):
            torch.manual_seed(0)
            view = replace(view, own=self.objective.modules({"last": D}, {"last": E}).to(dtype))
        return view

    def items(self, view: View) -> int:
        """How many values a loss over the view has."""
        return {"place": len(view.target_N), "set": len(set(view.set_B.tolist()))}[self.traits["item"]]

    def teach(self, logits_NV: torch.Tensor, k: int = K) -> Teacher | None:
        """This distribution as the teacher of the case's type."""
        if self.teacher == "topk":
            return store(logits_NV, k, self.arguments.get("temperature", 1.0))
        return DenseTeacher(logits_NV) if self.teacher == "dense" else None


def store(logits_NV: torch.Tensor, k: int, temperature: float) -> TopKTeacher:
    """What a probe would keep of the distribution."""
    log_p = (logits_NV / temperature).log_softmax(1)
    top = log_p.topk(k, 1)
    tail = log_p.exp().scatter(1, top.indices, 0).sum(1)
    return TopKTeacher(top.indices.int(), top.values, tail, temperature)


def cases() -> list[Case]:
    found = []
    for name in methods.available("objective"):
        method = methods.find("objective", name)
        for arguments in [{}, *ARGUMENTS.get(name, [])]:
            built = method.factory(**method.arguments.model_validate(arguments).model_dump())
            for teacher in {"any": ("dense", "topk"), "all": ("dense",)}.get(method.traits["teacher"], ("none",)):
                found.append(Case(name, arguments, teacher, built, dict(method.traits)))
    return found


CASES = cases()


def rows(view: View, index: torch.Tensor) -> View:
    """These places of a view, in this order."""
    picked: dict[str, Any] = {}
    for f in fields(view):
        value = getattr(view, f.name)
        if isinstance(value, DenseTeacher | TopKTeacher):
            picked[f.name] = value.at(index)
        elif isinstance(value, dict):
            picked[f.name] = {name: tensor[index] for name, tensor in value.items()}
        elif isinstance(value, torch.Tensor) and not f.name.endswith("_B"):
            picked[f.name] = value[index]
    return replace(view, **picked)


def value_at(case: Case, view: View, field: str, value: torch.Tensor) -> Loss:
    """The loss of a view in which one field, or the tap `last` of it, is something else."""
    changed: Any = value if isinstance(getattr(view, field), torch.Tensor) else {"last": value}
    return case(replace(view, **{field: changed}))


def read(view: View, field: str) -> torch.Tensor:
    value = getattr(view, field)
    return value if isinstance(value, torch.Tensor) else value["last"]


def value_and_gradient(case: Case, view: View) -> tuple[torch.Tensor, torch.Tensor]:
    """The step's loss over 1, and its gradient to what of the student the method reads."""
    learnt = read(view, case.learnt).detach().requires_grad_()
    total = reduce([value_at(case, view, case.learnt, learnt)], 1)
    (gradient,) = torch.autograd.grad(total, learnt)
    return total.detach(), gradient


def one_value_and_weight_per_item(case: Case) -> None:
    view = case.view()
    loss = case(view)
    assert loss.value_N.shape == loss.weight_N.shape == (case.items(view),)
    assert all(len(metric) == len(loss.value_N) and not metric.requires_grad for metric in loss.metrics.values())


def zero_at_itself_and_never_negative(case: Case) -> None:
    view = case.view()
    for dtype, near in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        itself = replace(view, student_NV=view.student_NV.to(dtype), teacher=case.teach(view.student_NV.to(dtype)))
        assert case(itself).value_N.abs().max() <= near
        assert value_and_gradient(case, itself)[1].abs().max() <= near
    for seed in range(20):
        assert case(case.view(seed, scale=5.0)).value_N.min() > 0


def shift_of_logits_changes_nothing(case: Case) -> None:
    view = case.view()
    shift = torch.linspace(-50, 50, N, dtype=torch.float64)[:, None]
    moved = replace(view, student_NV=view.student_NV + shift)
    if isinstance(view.teacher, DenseTeacher):
        moved = replace(moved, teacher=DenseTeacher(view.teacher.logits_NV - 3 * shift))
    torch.testing.assert_close(value_and_gradient(case, moved), value_and_gradient(case, view))


def gradient_is_the_derivative(case: Case) -> None:
    view = case.view(n=4)
    learnt = read(view, case.learnt).requires_grad_()
    of = lambda x: value_at(case, view, case.learnt, x).value_N  # noqa: E731
    assert torch.autograd.gradcheck(of, learnt, raise_exception=False)


def batch_is_the_sum_of_its_splits(case: Case) -> None:
    view = case.view()
    pieces = [value_and_gradient(case, rows(view, index)) for index in torch.arange(N).split([1, 3, 2])]
    values, gradients = zip(*pieces, strict=True)
    torch.testing.assert_close((sum(values), torch.cat(gradients)), value_and_gradient(case, view))


def order_of_tokens_is_irrelevant(case: Case) -> None:
    view, order = case.view(), torch.tensor([4, 2, 5, 0, 3, 1])
    torch.testing.assert_close(case(rows(view, order)).value_N, case(view).value_N[order])


def nothing_is_zero_with_a_gradient_path(case: Case) -> None:
    total, gradient = value_and_gradient(case, case.view(n=0))
    assert total == 0 and gradient.shape[0] == 0


def finite_at_the_extremes(case: Case) -> None:
    """In float32, at logits of 1e4, with columns of -inf in both, also where teacher and student are far apart."""
    extreme = torch.where(torch.arange(N * V).view(N, V) % 3 == 0, 1e4, -1e4)
    none, two = torch.zeros(V, dtype=torch.bool), torch.arange(V) >= V - 2
    for forbidden, k in ((none, K), (two, K), (two, V)):
        for student in (extreme, -extreme, torch.zeros(N, V)):
            for teacher in (extreme, -extreme, torch.zeros(N, V)):
                view = replace(
                    case.view(dtype=torch.float32),
                    student_NV=student.masked_fill(forbidden, -torch.inf),
                    teacher=case.teach(teacher.masked_fill(forbidden, -torch.inf), k),
                )
                value, gradient = value_and_gradient(case, view)
                assert value.isfinite() and gradient.isfinite().all()


def reads_are_exactly_what_is_declared(case: Case) -> None:
    view, reads = case.view(), case.traits["reads"]
    case.objective(view.restrict(reads))
    for name in reads:
        with pytest.raises(AttributeError, match=f"reads {name}"):
            case.objective(view.restrict(set(reads) - {name}))


def loss_moves_no_state(case: Case) -> None:
    view = case.view()
    before = [x.clone() for x in tensors(view)]
    first, other, second = case(view), case(case.view(seed=1)), case(view)
    assert torch.equal(first.value_N, second.value_N) and not torch.equal(first.value_N, other.value_N)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(view), strict=True))


def tensors(thing: Any) -> list[torch.Tensor]:
    values = [getattr(thing, f.name) for f in fields(thing)]
    inner = [x for value in values if isinstance(value, DenseTeacher | TopKTeacher) for x in tensors(value)]
    taps = [x for value in values if isinstance(value, dict) for x in value.values()]
    return [value for value in values if isinstance(value, torch.Tensor)] + inner + taps


def whole_top_k_equals_dense(case: Case) -> None:
    view = case.view()
    logits = torch.randn(N, V, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    for dtype in (torch.float64, torch.float32):
        student, teacher = view.student_NV.to(dtype), logits.to(dtype)
        dense = value_and_gradient(case, replace(view, student_NV=student, teacher=DenseTeacher(teacher)))
        whole = value_and_gradient(case, replace(view, student_NV=student, teacher=case.teach(teacher, k=V)))
        torch.testing.assert_close(whole, dense, rtol=1e-5, atol=1e-5)


def top_k_grows_to_dense_from_below(case: Case) -> None:
    """Joining outcomes loses information: no divergence grows by it. At K = V it is the dense one."""
    for seed in range(10):
        view = case.view(seed)
        logits = torch.randn(N, V, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3
        kept = [case(replace(view, teacher=case.teach(logits, k))).value_N for k in range(1, V + 1)]
        assert all((less <= more + 1e-9).all() for less, more in pairwise(kept))


def state_comes_back(case: Case) -> None:
    """An objective that goes on from a saved state goes on as the one that saved it."""

    def anew() -> Any:
        method = methods.find("objective", case.name)
        return method.factory(**method.arguments.model_validate(case.arguments).model_dump())

    def stepped(objective: Any, steps: range) -> list[torch.Tensor]:
        values = []
        for number in steps:
            step = Step(number, 12, number // 4, 3)
            loss = replace(case, objective=objective)(replace(case.view(number), step=step))
            objective.update(step, summarise([loss.detached()], len(loss.value_N)))
            values.append(loss.value_N)
        return values

    whole, first, second = anew(), anew(), anew()
    expected = stepped(whole, range(9))
    stepped(first, range(5))
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    assert all(torch.equal(a, b) for a, b in zip(stepped(second, range(5, 9)), expected[5:], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(whole.state().values(), second.state().values(), strict=True))


Law = Callable[[Case], None]


def reads_logits(case: Case) -> bool:
    return "student_NV" in case.traits["reads"]


def stands_alone(case: Case) -> bool:
    return case.traits.get("alone", True)


LAWS: dict[Law, Callable[[Case], bool]] = {
    one_value_and_weight_per_item: lambda case: True,
    zero_at_itself_and_never_negative: lambda case: case.traits["divergence"],
    shift_of_logits_changes_nothing: reads_logits,
    gradient_is_the_derivative: lambda case: not case.traits.get("surrogate", False),
    batch_is_the_sum_of_its_splits: stands_alone,
    order_of_tokens_is_irrelevant: stands_alone,
    nothing_is_zero_with_a_gradient_path: lambda case: True,
    finite_at_the_extremes: reads_logits,
    reads_are_exactly_what_is_declared: lambda case: True,
    loss_moves_no_state: lambda case: True,
    whole_top_k_equals_dense: lambda case: case.teacher == "topk",
    top_k_grows_to_dense_from_below: lambda case: case.teacher == "topk" and case.traits["divergence"],
    state_comes_back: lambda case: hasattr(case.objective, "state"),
}


@pytest.mark.parametrize(
    ("law", "case"),
    [(law, case) for law, applies in LAWS.items() for case in CASES if applies(case)],
    ids=lambda x: x.__name__ if callable(x) and hasattr(x, "__name__") else str(x),
)
def test_law(law: Law, case: Case) -> None:
    law(case)


def test_every_objective_is_under_the_laws() -> None:
    """Counted from the modules' functions, which is not how the cases were found."""
    marked = set()
    for file in Path(methods.ROOT, "objectives").glob("*.py"):
        module = importlib.import_module(f"pipeline.objectives.{file.stem}")
        marked |= {f"{file.stem}.{n}" for n, f in vars(module).items() if hasattr(f, "__stillhouse__")}
    assert {case.name for case in CASES} == marked
    assert ARGUMENTS.keys() <= marked


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
    "cross-entropy": (zero_at_itself_and_never_negative, "dense", dense(lambda p, q: -sum_p(p, q))),
    "weights left out": (zero_at_itself_and_never_negative, "dense", dense(lambda p, q: (p - q).sum(1))),
    "truncated": (zero_at_itself_and_never_negative, "topk", stored(lambda p, q: sum_p(p, p - q))),
    "renormalised": (top_k_grows_to_dense_from_below, "topk", stored(lambda p, q: sum_p(p.log_softmax(1), p - q))),
    "raw logits": (shift_of_logits_changes_nothing, "dense", squared_logits),
    "a scalar": (one_value_and_weight_per_item, "dense", dense(lambda p, q: sum_p(p, p - q).mean())),
    "averaged": (batch_is_the_sum_of_its_splits, "dense", dense(lambda p, q: sum_p(p, p - q) / len(p))),
    "order": (order_of_tokens_is_irrelevant, "dense", dense(lambda p, q: sum_p(p, p - q).cumsum(0))),
    "half a gradient": (gradient_is_the_derivative, "dense", dense(lambda p, q: sum_p(q.detach(), q - p))),
    "log of softmax": (finite_at_the_extremes, "dense", dense(lambda p, q: sum_p(p, p - q.exp().log()))),
    "memory": (loss_moves_no_state, "dense", counting()),
    "in place": (loss_moves_no_state, "dense", scaling_in_place),
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
    view = View(
        student_NV=torch.randn(1, V),
        target_N=torch.zeros(1, dtype=torch.int64),
        example_N=torch.zeros(1, dtype=torch.int64),
        weight_N=torch.ones(1),
        teacher=TopKTeacher(torch.tensor([[3, 1]]), torch.tensor([[-1e-7, -16.0]]), torch.zeros(1)),
    )
    for case in CASES:
        if case.teacher == "topk" and "temperature" not in case.arguments:
            assert case(view).value_N.item() < 100


def test_another_temperature_than_the_stored_one_is_refused() -> None:
    for name in methods.available("objective"):
        method = methods.find("objective", name)
        if "temperature" in method.arguments.model_fields:
            case = next(c for c in CASES if c.name == name and c.teacher == "topk" and not c.arguments)
            with pytest.raises(Refused, match="temperature: 1"):
                method.factory(temperature=2.0)(case.view())
            with pytest.raises(Refused, match="have none"):
                method.factory()(replace(case.view(), teacher=None))
            through_float32 = store(torch.randn(N, V), K, temperature=torch.tensor(0.7).item())
            assert len(method.factory(temperature=0.7)(replace(case.view(), teacher=through_float32)).value_N) == N


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
    normaliser = over_ranks(len(loss.value_N))
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
