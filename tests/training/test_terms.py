"""What a micro-batch costs is the sum of its terms, however the head is applied, and whatever a term looks at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from pipeline.core.methods import find  # noqa: E402
from pipeline.kinds.network import Seen  # noqa: E402
from pipeline.kinds.objective import DenseTeacher, Loss, Step, View  # noqa: E402
from pipeline.training import chunks, terms  # noqa: E402
from pipeline.training.places import Places  # noqa: E402
from pipeline.training.terms import Role, Term, loss_of  # noqa: E402

N, D, B = 23, 5, 4
WIDTHS = {"student": 11, "teacher": 9, "start": 13}
READS = frozenset({"student_NV", "target_N", "teacher", "reference", "example_N", "length_B", "settled_NS", "weight_N"})


@pytest.fixture(autouse=True)
def none_is_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few logits there are here, they are not made all at once."""
    monkeypatch.setattr(terms, "FEW", 0)


class Nearer:
    """Cross-entropy where the teacher is nearer than the reference, relative to how often it is in the batch; a mean
    over examples of their means over places."""

    def __init__(self) -> None:
        self.measured: list[int] = []

    def measure(self, view: View) -> torch.Tensor:
        assert isinstance(view.teacher, DenseTeacher) and isinstance(view.reference, DenseTeacher)
        assert not torch.is_grad_enabled()
        self.measured.append(len(view.student_NV))
        apart = [(view.student_NV - t.logits_NV).square().sum(1) for t in (view.teacher, view.reference)]
        return torch.stack(apart, 1)

    def settle(self, measured_NM: torch.Tensor, view: View) -> torch.Tensor:
        assert len(view.target_N) == len(measured_NM)
        nearer_N = (measured_NM[:, 0] < measured_NM[:, 1]).to(measured_NM)
        return (nearer_N / nearer_N.mean().clamp_min(1e-9))[:, None]

    def __call__(self, view: View) -> Loss:
        value_N = torch.nn.functional.cross_entropy(view.student_NV, view.target_N.clamp_min(0), reduction="none")
        return Loss(value_N * view.settled_NS[:, 0] / view.length_B[view.example_N], view.weight_N)


class Shown:
    """What a network shows of a batch, without the network."""

    def __init__(self, states_ND: torch.Tensor, head: torch.nn.Module) -> None:
        self.seen = Seen(states_ND, {"main": head})

    def look(self, *_: object) -> Seen:
        return self.seen


def world(places: int = N) -> tuple[dict[str, Any], Places]:
    draw = torch.Generator().manual_seed(1)
    roles: dict[str, Any] = {}
    for number, (name, width) in enumerate(WIDTHS.items()):
        torch.manual_seed(number)
        head = torch.nn.Linear(D, width).requires_grad_(name == "student")
        states = torch.randn(places, D, generator=draw).requires_grad_(name == "student")
        roles[name] = Role(head, Shown(states, head), name == "student")  # type: ignore[arg-type]
    target_N = torch.randint(9, (places,), generator=draw)
    target_N[::5] = -1
    stood = Places(
        target_N=target_N,
        example_N=torch.arange(places) * B // max(places, 1),
        weight_B=torch.rand(B, generator=draw),
        set_B=torch.arange(B),
        reward_B=torch.zeros(B),
        counts={},
    )
    return roles, stood


def loss(roles: dict[str, Any], stood: Places, given: Sequence[Term]) -> torch.Tensor:
    return loss_of(given, {}, stood, roles, Step(0, 1, 0, 1), {"place": N, "labelled": 18, "example": B})


def gradients(roles: dict[str, Any], value: torch.Tensor) -> list[torch.Tensor]:
    seen = roles["student"].network.seen
    return list(torch.autograd.grad(value, [seen.states_ND, *seen.heads["main"].parameters()]))


@pytest.mark.parametrize("where", ["all", "labelled", "unlabelled"])
def test_a_first_look_needs_no_logits_of_all_places(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """In chunks of four places, beside a term without one, it is what all logits at once give."""
    roles, stood = world()
    objective = Nearer()
    term = Term(0.7, objective, READS, per="example", alone=False, against="teacher", reference="start", where=where)  # type: ignore[arg-type]
    at_once = [replace(term, item="set"), Term(2.0, _plain, frozenset({"student_NV", "weight_N"}))]
    whole = loss(roles, stood, at_once)
    assert objective.measured == [{"all": N, "labelled": 18, "unlabelled": 5}[where]]
    expected = gradients(roles, whole)
    monkeypatch.setattr(chunks, "CHUNK", {"cpu": 1, "cuda": 1})
    monkeypatch.setattr(chunks, "BLOCK", {"cpu": 8, "cuda": 8})
    cut = loss(roles, stood, [term, at_once[1]])
    assert max(objective.measured[1:]) <= 4 and sum(objective.measured[1:]) == objective.measured[0]
    torch.testing.assert_close((cut, gradients(roles, cut)), (whole, expected))


# Heads that the first look applies, and the second; whether this is at some of the places.
LOOKS = {
    "tokens.adaspec": (3, 2, True),
    "tokens.indirect": (1, 2, True),
    "tokens.entropy": (1, 1, True),
    "schedule.guidance": (2, 2, False),
}


@pytest.mark.parametrize("name", LOOKS)
def test_what_is_not_chosen_or_not_read_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    method = find("objective", name)
    sets: dict[str, Any] = {key: frozenset(method.traits.get(key, ())) for key in ("reads", "first", "second")}
    chooses = method.traits.get("chooses", False)
    term = Term(0.7, method.factory(), alone=False, chooses=chooses, reference="start", where="labelled", **sets)
    term = replace(term, against="teacher")
    roles, stood = world()
    whole = loss(roles, stood, [replace(term, item="set")])
    expected = gradients(roles, whole)
    applied: list[tuple[int, int]] = []

    def counted(states_ND: torch.Tensor, *given: Any, **more: Any) -> torch.Tensor:
        applied.append((1 + len(more["frozen"]), len(states_ND)))
        return chunks.loss_in_chunks(states_ND, *given, **more)

    monkeypatch.setattr(terms, "loss_in_chunks", counted)
    monkeypatch.setattr(chunks, "CHUNK", {"cpu": 1, "cuda": 1})
    monkeypatch.setattr(chunks, "BLOCK", {"cpu": 8, "cuda": 8})
    cut = loss(roles, stood, [term])
    torch.testing.assert_close((cut, gradients(roles, cut)), (whole, expected))
    first, second, some = LOOKS[name]
    assert [heads for heads, _ in applied] == [first, second]
    assert applied[0][1] == N and (0 < applied[1][1] < N) == some


def _plain(view: View) -> Loss:
    return Loss(view.student_NV.square().sum(1), view.weight_N)


def test_a_batch_without_places_costs_nothing() -> None:
    roles, stood = world(0)
    term = Term(1.0, Nearer(), READS, per="example", alone=False, against="teacher", reference="start")
    value = loss(roles, stood, [term])
    assert value == 0
    assert all(not gradient.any() for gradient in gradients(roles, value))


def test_a_model_may_be_beside_itself() -> None:
    """Named as its own teacher, the student is looked at and learns from the term's own logits alone."""
    roles, stood = world()
    term = Term(1.0, Nearer(), READS, per="example", alone=False, against="student", reference="start")
    value = loss(roles, stood, [term])
    assert all(gradient.any() for gradient in gradients(roles, value))


def test_states_are_learnt_through_a_term_that_reads_logits_and_a_tap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tap's gradient is none of a chunk's logits, and is not lost."""

    def product(view: View) -> Loss:
        return Loss(view.student_NV.square().sum(1) * view.features["last"].sum(1), view.weight_N)

    found = []
    monkeypatch.setattr(chunks, "CHUNK", {"cpu": 1, "cuda": 1})
    for item in ("set", "place"):
        roles, stood = world()
        seen = roles["student"].network.seen
        roles["student"].network.seen = replace(seen, features={"last": seen.states_ND * 2})
        term = Term(1.0, product, frozenset({"student_NV", "features", "weight_N"}), item=item)
        value = loss(roles, stood, [term])
        found.append((value, gradients(roles, value)))
    torch.testing.assert_close(*found)
