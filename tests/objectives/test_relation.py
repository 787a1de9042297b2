"""Relations of places: nothing where the teacher's are the student's, whatever the widths."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.core.methods import find
from pipeline.kinds.objective import View
from pipeline.laws.objective import Case
from pipeline.laws.objective import cases as all_cases

N, D, E = 9, 4, 6


def case(use: str, **arguments: Any) -> Case:
    first = next(all_cases(find("objective", use)))
    method = first.method
    made = method.factory(**method.arguments.model_validate(arguments).model_dump())
    return Case(method, arguments, "none", made)


def view(states: torch.Tensor, teachers: torch.Tensor, own: Any = None, examples: int = 3) -> View:
    count = len(states)
    return View(
        features={"last": states}, teacher_features={"last": teachers},
        own=own or torch.nn.Linear(states.shape[1], teachers.shape[1]).double(),
        example_N=torch.arange(count) * examples // max(count, 1), weight_N=torch.ones(count, dtype=states.dtype),
    )  # fmt: skip


def states(seed: int, width: int, count: int = N) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turned(seed: int, width: int, wider: int) -> torch.Tensor:
    """A map to more numbers that keeps lengths and angles."""
    return torch.linalg.qr(states(seed, width, wider))[0].T


def test_states_that_are_turned_lie_to_each_other_as_before() -> None:
    """Similarities of inner products know no axes, and no widths."""
    mine = states(0, D)
    value = case("relation.gram")(view(mine, mine @ turned(1, D, E))).value_N
    torch.testing.assert_close(value, torch.zeros_like(value), atol=1e-12, rtol=0)
    assert case("relation.gram")(view(mine, states(2, E))).value_N.min() > 0


def test_the_mean_over_places_is_the_distance_of_tung_and_mori() -> None:
    mine, theirs = states(0, D), states(1, E)
    one, two = (torch.nn.functional.normalize(x @ x.T, dim=1) for x in (mine, theirs))
    expected = (one - two).square().sum() / N**2
    torch.testing.assert_close(case("relation.gram")(view(mine, theirs)).value_N.mean(), expected)


TERMS = {"inner": 0.0, "local": 0.0, "both": 0.0}


@pytest.mark.parametrize("term", ["inner", "local"])
def test_a_graph_of_equal_states_costs_nothing(term: str) -> None:
    mine = states(0, D)
    value = case("feature.trg", **{**TERMS, term: 1.0})(view(mine, mine)).value_N
    torch.testing.assert_close(value, torch.zeros_like(value), atol=1e-12, rtol=0)
    assert case("feature.trg", **{**TERMS, term: 1.0})(view(mine, states(1, D))).value_N.sum() > 0


def test_places_that_are_all_alike_are_found_by_chance() -> None:
    """The logarithm of their number."""
    own = torch.nn.Linear(D, E).double()
    given = view(torch.ones(N, D, dtype=torch.float64), torch.ones(N, E, dtype=torch.float64), own)
    value = case("feature.trg", **{**TERMS, "both": 1.0})(given).value_N
    torch.testing.assert_close(value, torch.full_like(value, N).log())


def test_another_example_is_no_neighbour_inside() -> None:
    """A state that moves changes the inner relations of its own example alone."""
    mine, theirs = states(0, D), states(1, D)
    moved = mine.clone()
    moved[0] += 1
    inner = case("feature.trg", **{**TERMS, "inner": 1.0})
    changed = (inner(view(moved, theirs)).value_N - inner(view(mine, theirs)).value_N).abs() > 1e-9
    assert changed.tolist() == [True] * 3 + [False] * 6


def test_some_places_stand_for_all() -> None:
    """The others are worth 0, and the mean is that of those which take part."""
    mine, theirs = states(0, D), states(1, D)
    few = case("feature.trg", **{**TERMS, "local": 1.0}, places=3)(view(mine, theirs)).value_N
    alone = case("feature.trg", **{**TERMS, "local": 1.0})(view(mine[::3], theirs[::3])).value_N
    assert (few != 0).nonzero()[:, 0].tolist() == [0, 3, 6]
    torch.testing.assert_close(few.mean(), alone.mean())


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("use", ["relation.gram", "feature.trg"])
def test_one_place_has_no_relation(use: str, count: int) -> None:
    own = torch.nn.Linear(D, E).double()
    mine = states(0, D, count).requires_grad_()
    value = case(use)(view(mine, states(1, E, count), own)).value_N
    (gradient,) = torch.autograd.grad(value.sum(), mine)
    assert value.shape == (count,) and value.isfinite().all() and gradient.isfinite().all()


def test_a_place_attends_within_its_example_as_the_teachers_does() -> None:
    mine, theirs = states(1, D), states(2, E)
    within = find("objective", "relation.within").factory(tap="last", teacher_tap="last")
    found, examples = within(view(mine, theirs)).value_N, torch.arange(N) * 3 // N
    for i in range(N):
        own = (examples == examples[i]).nonzero()[:, 0].tolist()
        p, q = (torch.stack([s[i] @ s[j] / s.shape[1] ** 0.5 for j in own]).softmax(0) for s in (theirs, mine))
        assert float(found[i]) == pytest.approx(float((p * (p / q).log()).sum()))
    scaled = mine @ turned(3, D, E) * (E / D) ** 0.25
    torch.testing.assert_close(within(view(mine, scaled)).value_N, torch.zeros(N, dtype=torch.float64))
