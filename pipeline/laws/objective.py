"""Laws of objectives: a loss is one value per item, of the view and nothing else, and its gradient is its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, cast

import torch

from pipeline.core.methods import Method
from pipeline.kinds.objective import (
    AGAINST,
    JUDGED,
    OUTCOMES,
    UNFILLED,
    DenseTeacher,
    Loss,
    Objective,
    OtherTeacher,
    Shown,
    Step,
    Teacher,
    TopKTeacher,
    View,
    first_look,
)
from pipeline.laws.law import arguments, build, must
from pipeline.training.reduce import reduce, summarise

N, V, K = 6, 9, 4
# Widths of the student's and the teacher's taps.
D, E = 5, 7
TAPS = {"tap": "last", "teacher_tap": "within", "role": "student"}
# What of a view a loss may be differentiated by, the first that a method reads.
LEARNT = ("student_NV", "logprob_N", "features", "networks")


@dataclass(frozen=True)
class Called:
    """A model for a play, that is made up: samples of noised ones and their times, moved by a number of each place."""

    way_DD: torch.Tensor
    moved_ND: torch.Tensor

    def __call__(self, x: torch.Tensor, t_N: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ self.way_DD + t_N[:, None]) + (1 + t_N[:, None]) * self.moved_ND

    def __getitem__(self, index: torch.Tensor) -> Called:
        return replace(self, moved_ND=self.moved_ND[index])


def called(seed: int, n: int, dtype: torch.dtype) -> Called:
    """Another model for every seed."""
    draw = torch.Generator().manual_seed(seed)
    return Called(torch.randn(D, D, generator=draw, dtype=dtype), torch.randn(n, D, generator=draw, dtype=dtype))


@dataclass(frozen=True)
class Case:
    """A method with arguments, on one type of teacher."""

    method: Method
    arguments: dict[str, Any]
    teacher: str
    objective: Objective

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def traits(self) -> Mapping[str, Any]:
        return self.method.traits

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.arguments.items()), self.teacher])

    def __call__(self, view: View, reads: Iterable[str] | None = None) -> Loss:
        reads = self.traits["reads"] if reads is None else reads
        return self.objective(first_look(self.objective, view, reads).restrict(reads))

    @property
    def learnt(self) -> str:
        """The field that its loss is differentiated by."""
        return next(name for name in LEARNT if name in self.traits["reads"])

    def view(self, seed: int = 0, n: int = N, dtype: torch.dtype = torch.float64, scale: float = 2.0) -> View:
        """Random places, two of an example, two examples of a set, with another distribution and other states as the
        teacher's, in the second of three epochs."""
        draw = torch.Generator().manual_seed(seed)
        student, teacher = (torch.randn(n, V, generator=draw, dtype=dtype) * scale for _ in range(2))
        target_N = torch.randint(V - 2, (n,), generator=draw)
        if self.traits.get("both"):
            target_N[::3] = -1
        examples = (n + 1) // 2
        weight_B = torch.rand(examples, generator=draw, dtype=dtype) + 0.5
        view = View(
            student_NV=student,
            target_N=target_N,
            logprob_N=-torch.rand(n, generator=draw, dtype=dtype) * scale,
            teacher=self.teach(teacher, target_N),
            reference_N=-torch.rand(n, generator=draw, dtype=dtype) * scale,
            features={"last": torch.randn(n, D, generator=draw, dtype=dtype)},
            teacher_features={tap: self.told(n, draw, dtype) for tap in self.teacher_taps},
            example_N=torch.arange(n) // 2,
            weight_N=weight_B[torch.arange(n) // 2],
            set_B=torch.arange(examples) // 2,
            reward_B=torch.rand(examples, generator=draw, dtype=dtype),
            length_B=torch.bincount(torch.arange(n) // 2, minlength=examples),
            links_2E=torch.stack([torch.arange(n), (torch.arange(n) + 2) % max(n, 1)]),
            step=Step(4, 12, 1, 3),
            other=OtherTeacher(
                torch.randn(n, V + 2, generator=draw, dtype=dtype) * scale,
                -torch.rand(n, generator=draw, dtype=dtype),
                -torch.rand(n, generator=draw, dtype=dtype),
                torch.tensor([3, -1, 0, 5, -1, 7, 1, -1, -1, 2, 8]),
            ),
        )
        view = replace(view, look=looked, teacher_look=looked)
        view = replace(view, reference=DenseTeacher(torch.randn(n, V, generator=draw, dtype=dtype) * scale))
        if "networks" in self.traits["reads"]:
            # A play may call every model that its arguments name, and those that its term does.
            fields = self.method.arguments.model_fields
            filled = self.method.arguments.model_validate(self.arguments).model_dump()
            roles = [JUDGED, AGAINST, *(filled[name] for name, field in fields.items() if "role" in field.metadata)]
            view = replace(
                view,
                truth=torch.randn(n, D, generator=draw, dtype=dtype),
                draws={
                    "start": torch.randn(n, D, generator=draw, dtype=dtype),
                    "noise": torch.randn(n, D, generator=draw, dtype=dtype),
                    "time": 0.1 + 0.9 * torch.rand(n, generator=draw, dtype=dtype),
                },
                networks={role: called(100 * seed + at, n, dtype) for at, role in enumerate(roles)},
            )
        if hasattr(self.objective, "modules"):
            torch.manual_seed(0)
            widths = {"last": D, OUTCOMES: V}, dict.fromkeys(self.teacher_taps, E)
            view = replace(view, own=self.objective.modules(*widths).to(dtype))
        return view

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        """The taps of a teacher's that it reads."""
        return getattr(self.objective, "teacher_taps", ("last",))

    def told(self, n: int, draw: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
        """What such a tap holds: states, or for an objective of logits a target for each of them."""
        targets = "student_NV" in self.traits["reads"]
        made = torch.randn(n, V if targets else E, generator=draw, dtype=dtype)
        return made.softmax(1) if targets else made

    def items(self, view: View) -> int:
        """How many values a loss over the view has."""
        return {
            "place": len(view.target_N),
            "set": len(set(view.set_B.tolist())),
            "link": view.links_2E.shape[1],
            "neighbour": view.links_2E.shape[1] + len(view.target_N),
        }[self.traits["item"]]

    def teach(self, logits_NV: torch.Tensor, target_N: torch.Tensor, k: int = K) -> Teacher | None:
        """This distribution as the teacher of the case's type."""
        if self.teacher == "topk":
            filled = self.method.arguments.model_validate(self.arguments).model_dump()
            kept = store(logits_NV, k, filled.get("temperature", 1.0), target_N)
            return replace(kept, tails={1.0: store(logits_NV, k, 1.0).tail_N})
        return DenseTeacher(logits_NV) if self.teacher == "dense" else None


def looked(put: Mapping[str, torch.Tensor], taps: Sequence[str] = ()) -> Shown:
    """A model's look with these states inside: every place by itself, with a gradient."""
    told_N = torch.cat([state.tanh() for state in put.values()], 1).sum(1)
    shades_E = torch.linspace(0.2, 1, E, dtype=told_N.dtype)
    outcomes_V = torch.linspace(-1, 2, V, dtype=told_N.dtype)
    return Shown(
        dict.fromkeys(taps, told_N[:, None] * shades_E),
        lambda: -told_N.square(),
        lambda: told_N[:, None] * outcomes_V - told_N.square()[:, None] * outcomes_V.square(),
    )


def store(logits_NV: torch.Tensor, k: int, temperature: float, target_N: torch.Tensor | None = None) -> TopKTeacher:
    """What a probe would keep of the distribution."""
    log_p = (logits_NV / temperature).log_softmax(1)
    top = log_p.topk(k, 1)
    tail = log_p.exp().scatter(1, top.indices, 0).sum(1)
    of_target_N = UNFILLED if target_N is None else log_p.gather(1, target_N[:, None])[:, 0]
    return TopKTeacher(top.indices.int(), top.values, tail, temperature, target_N=of_target_N)


def cases(method: Method) -> Iterator[Case]:
    """An objective with several arguments, on every type of teacher that it takes."""
    for given in arguments(method, TAPS):
        live = ("dense",) if "teacher" in method.traits["reads"] else ("none",)
        kinds = {"any": ("dense", "topk"), "all": ("dense",), "live": live}
        for teacher in kinds.get(method.traits["teacher"], ("none",)):
            yield Case(method, given, teacher, build(method, given))


def rows(view: View, index: torch.Tensor) -> View:
    """These places of a view, in this order."""
    picked: dict[str, Any] = {}
    for f in fields(view):
        value = getattr(view, f.name)
        if isinstance(value, DenseTeacher | TopKTeacher | OtherTeacher):
            picked[f.name] = value.at(index)
        elif isinstance(value, dict):
            picked[f.name] = {name: tensor[index] for name, tensor in value.items()}
        elif isinstance(value, torch.Tensor) and not f.name.endswith(("_B", "_2E")):
            picked[f.name] = value[index]
    return replace(view, **picked)


def value_at(case: Case, view: View, field: str, value: torch.Tensor) -> Loss:
    """The loss of a view in which one field, the tap `last` of it, or the judged model, is something else."""
    changed: Any = value if isinstance(getattr(view, field), torch.Tensor) else {"last": value}
    if field == "networks":
        changed = {**view.networks, JUDGED: replace(cast(Called, view.networks[JUDGED]), moved_ND=value)}
    return case(replace(view, **{field: changed}))


def read(view: View, field: str) -> torch.Tensor:
    """A field of a view, or the tap `last` of it, or what moves the judged model."""
    value = getattr(view, field)
    if field == "networks":
        return value[JUDGED].moved_ND
    return value if isinstance(value, torch.Tensor) else value["last"]


def value_and_gradient(case: Case, view: View) -> tuple[torch.Tensor, torch.Tensor]:
    """The step's loss over 1, and its gradient to what of the student the method reads."""
    learnt = read(view, case.learnt).detach().requires_grad_()
    total = reduce([value_at(case, view, case.learnt, learnt)], 1)
    (gradient,) = torch.autograd.grad(total, learnt)
    return total.detach(), gradient


def close(seen: Any, expected: Any, near: float | None = None) -> None:
    """Equal but for rounding."""
    torch.testing.assert_close(seen, expected, rtol=near, atol=near)


def one_value_and_weight_per_item(case: Case) -> None:
    """There is one value and one weight per item. Give tensors as long as the items that `item` names, not their mean;
    a metric is as long, and detached."""
    view = case.view()
    loss = case(view)
    shapes = tuple(loss.value_N.shape), tuple(loss.weight_N.shape)
    must(shapes == ((case.items(view),),) * 2, f"{case.items(view)} items, and shapes {shapes}")
    for name, metric in loss.metrics.items():
        must(len(metric) == len(loss.value_N) and not metric.requires_grad, f"the metric {name}")


def zero_at_itself_and_never_negative(case: Case) -> None:
    """A divergence is zero where the student is the teacher, and above it elsewhere. Compare whole distributions, or
    say `divergence=False`."""
    view = case.view()
    # Of the values that it has elsewhere, rounding is a share.
    size = max(1.0, float(case(view).value_N.abs().max()), float(value_and_gradient(case, view)[1].abs().max()))
    for dtype, near in ((torch.float64, 1e-12 * size), (torch.float32, 1e-6 * size)):
        itself = replace(
            view, student_NV=view.student_NV.to(dtype), teacher=case.teach(view.student_NV.to(dtype), view.target_N)
        )
        must(bool(case(itself).value_N.abs().max() <= near), "a value of a student that is its teacher is not 0")
        must(bool(value_and_gradient(case, itself)[1].abs().max() <= near), "its gradient is not 0 there")
    for seed in range(20):
        must(bool(case(case.view(seed, scale=5.0)).value_N.min() > 0), "a value is not above 0 elsewhere")


def shift_of_logits_changes_nothing(case: Case) -> None:
    """A number added to all logits of a place changes nothing. Normalise logits before they are compared, or
    say `shift=False`."""
    view = case.view()
    shift = torch.linspace(-50, 50, N, dtype=torch.float64)[:, None]
    moved = replace(view, student_NV=view.student_NV + shift)
    if isinstance(view.teacher, DenseTeacher):
        moved = replace(moved, teacher=DenseTeacher(view.teacher.logits_NV - 3 * shift))
    close(value_and_gradient(case, moved), value_and_gradient(case, view))


def gradient_is_the_derivative(case: Case) -> None:
    """The gradient is the derivative of the value. If it is another one on purpose, say `surrogate=True`."""
    view = case.view(n=4)
    learnt = read(view, case.learnt).requires_grad_()
    of = lambda x: value_at(case, view, case.learnt, x).value_N  # noqa: E731
    must(torch.autograd.gradcheck(of, learnt, raise_exception=False), f"by {case.learnt}")


def batch_is_the_sum_of_its_splits(case: Case) -> None:
    """A batch is the sum of its parts. If an item's value depends on the other items, say `alone=False`; never divide
    by their number."""
    view = case.view()
    pieces = [value_and_gradient(case, rows(view, index)) for index in torch.arange(N).split([1, 3, 2])]
    values, gradients = zip(*pieces, strict=True)
    close((sum(values), torch.cat(gradients)), value_and_gradient(case, view))


def order_of_tokens_is_irrelevant(case: Case) -> None:
    """The order of the items means nothing. If it does, say `alone=False`."""
    view, order = case.view(), torch.tensor([4, 2, 5, 0, 3, 1])
    close(case(rows(view, order)).value_N, case(view).value_N[order])


def a_first_look_is_made_of_its_pieces(case: Case) -> None:
    """What is measured of a place hangs on that place alone, and so does its value once all is settled; neither reads
    what is said to be the other's, and a place that is not chosen is worth 0. Let `settle` bring the places together,
    and see to `first`, `second` and `chooses`."""
    view, reads, objective = case.view(), set(case.traits["reads"]), cast(Any, case.objective)
    first, second = (set(case.traits.get(name, ())) for name in ("first", "second"))
    view = first_look(objective, view, reads)
    pieces = [rows(view, index) for index in torch.arange(N).split([1, 3, 2])]
    measured = [objective.measure(piece.restrict(reads - second)) for piece in pieces]
    values = [objective(piece.restrict(reads - first)).value_N for piece in pieces]
    if case.traits.get("chooses"):
        must(not torch.cat(values)[~view.settled_NS.any(1)].any(), "a place that is not chosen has a value")
    must(all(each.ndim == 2 for each in (view.settled_NS, *measured)), "what is measured or settled is no [N, .]")
    must(not view.settled_NS.requires_grad, "what is settled has a gradient")
    close(torch.cat(measured), objective.measure(view.restrict(reads)))
    close(torch.cat(values), objective(view.restrict(reads)).value_N)


def nothing_is_zero_with_a_gradient_path(case: Case) -> None:
    """Without an item the loss is 0, with a gradient path, so that every rank takes part in the backward pass. Let no
    mean or maximum be taken of nothing."""
    total, gradient = value_and_gradient(case, case.view(n=0))
    must(bool(total == 0) and gradient.shape[0] == 0, f"the loss is {float(total)}")


def finite_at_the_extremes(case: Case) -> None:
    """Value and gradient are finite at logits of 1e4 and -inf, in float32. Use `log_softmax`, not the logarithm of
    `softmax`, and leave out what is impossible."""
    extreme = torch.where(torch.arange(N * V).view(N, V) % 3 == 0, 1e4, -1e4)
    none, two = torch.zeros(V, dtype=torch.bool), torch.arange(V) >= V - 2
    for forbidden, k in ((none, K), (two, K), (two, V)):
        for student in (extreme, -extreme, torch.zeros(N, V)):
            for teacher in (extreme, -extreme, torch.zeros(N, V)):
                view = case.view(dtype=torch.float32)
                view = replace(
                    view,
                    student_NV=student.masked_fill(forbidden, -torch.inf),
                    teacher=case.teach(teacher.masked_fill(forbidden, -torch.inf), view.target_N, k),
                )
                value, gradient = value_and_gradient(case, view)
                must(bool(value.isfinite() and gradient.isfinite().all()), f"the loss is {float(value)}")


def reads_are_exactly_what_is_declared(case: Case) -> None:
    """It looks at the fields that `reads` declares, at all of them, and at no other. Change `reads`."""
    view, reads = case.view(), case.traits["reads"]
    case(view)
    for name in reads:
        try:
            case(view, set(reads) - {name})
        except AttributeError as error:
            must(f"reads {name}" in str(error), str(error))
        else:
            must(False, f"it declares {name} and does not look at it")


def loss_moves_no_state(case: Case) -> None:
    """Calling it moves no state, and changes nothing of what it is given. Move state in `update`."""
    view = case.view()
    before = [x.clone() for x in tensors(view)]
    first, other, second = case(view), case(case.view(seed=1)), case(view)
    must(torch.equal(first.value_N, second.value_N), "a second call gives another value")
    must(not torch.equal(first.value_N, other.value_N), "another view gives the same value")
    same = all(torch.equal(a, b) for a, b in zip(before, tensors(view), strict=True))
    must(same, "it writes into its view")


def tensors(thing: Any) -> list[torch.Tensor]:
    """All tensors of a view."""
    values = [getattr(thing, f.name) for f in fields(thing)]
    inner = [
        x for value in values if isinstance(value, DenseTeacher | TopKTeacher | OtherTeacher) for x in tensors(value)
    ]
    dicts = [x for value in values if isinstance(value, dict) for x in value.values()]
    taps = [x.moved_ND if isinstance(x, Called) else x for x in dicts]
    return [value for value in values if isinstance(value, torch.Tensor)] + inner + taps


def whole_top_k_equals_dense(case: Case) -> None:
    """A stored teacher of all outcomes is the live one. Take both from `distributions.outcomes`."""
    view = case.view()
    logits = torch.randn(N, V, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    for dtype in (torch.float64, torch.float32):
        student, teacher = view.student_NV.to(dtype), logits.to(dtype)
        dense = value_and_gradient(case, replace(view, student_NV=student, teacher=DenseTeacher(teacher)))
        whole = value_and_gradient(
            case, replace(view, student_NV=student, teacher=case.teach(teacher, view.target_N, V))
        )
        close(whole, dense, 1e-5)


def top_k_grows_to_dense_from_below(case: Case) -> None:
    """Joining outcomes loses information, so a divergence of fewer stored outcomes is never above that of more. Do not
    renormalise the K alone."""
    for seed in range(10):
        view = case.view(seed)
        logits = torch.randn(N, V, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3
        kept = [case(replace(view, teacher=case.teach(logits, view.target_N, k))).value_N for k in range(1, V + 1)]
        must(all(bool((less <= more + 1e-9).all()) for less, more in pairwise(kept)), "it grows as outcomes are joined")


def state_comes_back(case: Case) -> None:
    """One that goes on from a saved state goes on as the one that saved it. Let `state` give all that `update`
    moves."""

    def anew() -> Any:
        return build(case.method, case.arguments)

    def stepped(objective: Any, steps: range) -> list[torch.Tensor]:
        values = []
        for number in steps:
            step = Step(number, 12, number // 4, 3)
            loss = replace(case, objective=objective)(replace(case.view(number), step=step))
            objective.update(step, summarise([loss], len(loss.value_N)))
            values.append(loss.value_N)
        return values

    whole, first, second = anew(), anew(), anew()
    expected = stepped(whole, range(9))
    stepped(first, range(5))
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    went = all(torch.equal(a, b) for a, b in zip(stepped(second, range(5, 9)), expected[5:], strict=True))
    must(went, "its values differ")
    kept = zip(whole.state().values(), second.state().values(), strict=True)
    must(all(torch.equal(a, b) for a, b in kept), "its state differs")


Law = Callable[[Case], None]


def every(case: Case) -> bool:
    """A law without exception."""
    return True


def reads_logits(case: Case) -> bool:
    """A law of what compares logits."""
    return "student_NV" in case.traits["reads"]


def shifts(case: Case) -> bool:
    """A law of what compares the logits of a place with each other."""
    return reads_logits(case) and case.traits.get("shift", True)


def is_a_divergence(case: Case) -> bool:
    """A law of divergences; whether a method is one may hang on its arguments."""
    return _declared(case, "divergence")


def is_its_own_gradient(case: Case) -> bool:
    """A law of what is no surrogate; that too may hang on its arguments."""
    return not _declared(case, "surrogate")


def _declared(case: Case, trait: str) -> bool:
    declared = case.traits.get(trait, False)
    filled = case.method.arguments.model_validate(case.arguments).model_dump()
    return declared(filled) if callable(declared) else declared


def stands_alone(case: Case) -> bool:
    """A law of what judges every item by itself."""
    return case.traits.get("alone", True)


LAWS: dict[Law, Callable[[Case], bool]] = {
    one_value_and_weight_per_item: every,
    zero_at_itself_and_never_negative: is_a_divergence,
    shift_of_logits_changes_nothing: shifts,
    gradient_is_the_derivative: is_its_own_gradient,
    batch_is_the_sum_of_its_splits: stands_alone,
    order_of_tokens_is_irrelevant: stands_alone,
    a_first_look_is_made_of_its_pieces: lambda case: hasattr(case.objective, "measure"),
    nothing_is_zero_with_a_gradient_path: every,
    finite_at_the_extremes: reads_logits,
    reads_are_exactly_what_is_declared: every,
    loss_moves_no_state: every,
    whole_top_k_equals_dense: lambda case: case.teacher == "topk",
    top_k_grows_to_dense_from_below: lambda case: case.teacher == "topk" and is_a_divergence(case),
    state_comes_back: lambda case: hasattr(case.objective, "state"),
}
