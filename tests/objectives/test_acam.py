"""ACAM-KD: masks that mask nothing are the plain distance, and a picture's value is its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.core.methods import find
from pipeline.kinds.objective import View

OWN, THEIRS = 3, 4


def built(**arguments: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    method = find("objective", "feature.acam")
    objective = method.factory(**method.arguments.model_validate(arguments).model_dump())
    return objective, objective.modules({"last": OWN}, {"last": THEIRS})


def view(own: Any, example: list[int], order: list[int] | None = None) -> View:
    dice = torch.Generator().manual_seed(1)
    at = torch.tensor(range(len(example)) if order is None else order, dtype=torch.long)
    mine, theirs = (torch.randn(len(example), width, generator=dice)[at] for width in (OWN, THEIRS))
    return View(
        features={"last": mine}, teacher_features={"last": theirs}, own=own, weight_N=torch.ones(len(at)),
        example_N=torch.tensor(example)[at],
    )  # fmt: skip


@pytest.mark.parametrize("masks", [1, 3])
def test_masks_that_mask_nothing_are_the_plain_distance_twice(masks: int) -> None:
    """Once over channels and once over pixels; masks that are all alike overlap wholly, in both."""
    objective, own = built(masks=masks, diversity=0.5)
    for name in ("channels", "pixels"):
        torch.nn.init.zeros_(own[name].weight)
    shown = view(own, [0, 0, 0, 1, 1])
    plain_N = (shown.teacher_features["last"] - own["align"](shown.features["last"])).square().mean(1)
    expected_N = 2 * plain_N + 0.5 * 2 * (masks > 1)
    torch.testing.assert_close(objective(shown).value_N, expected_N, rtol=1e-4, atol=1e-4)


def test_a_picture_stands_alone_wherever_its_places_are() -> None:
    objective, own = built()
    value_N = objective(view(own, [0, 0, 0, 1, 1])).value_N
    order = [4, 2, 0, 3, 1]
    torch.testing.assert_close(objective(view(own, [0, 0, 0, 1, 1], order)).value_N, value_N[order])
    both = view(own, [0, 0, 0, 1, 1])
    first = View(
        features={"last": both.features["last"][:3]}, teacher_features={"last": both.teacher_features["last"][:3]},
        own=own, weight_N=torch.ones(3), example_N=torch.zeros(3, dtype=torch.long),
    )  # fmt: skip
    torch.testing.assert_close(objective(first).value_N, value_N[:3])


def test_a_mask_learns_where_the_teacher_is_far() -> None:
    """It turns away from what cannot be learnt, and to what can: the loss falls by the masks alone."""
    objective, own = built(masks=2, diversity=0.0)
    learnt = [*own["channels"].parameters(), *own["pixels"].parameters()]
    steps = torch.optim.Adam(learnt, 0.1)
    values = []
    for _ in range(30):
        value = objective(view(own, [0, 0, 0, 1, 1])).value_N.sum()
        steps.zero_grad()
        value.backward()
        steps.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.9 * values[0]
