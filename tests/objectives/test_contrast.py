"""Contrast between copies of an example, held against its definition written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pipeline.core.methods import find
from pipeline.kinds.objective import View

EXAMPLES = [0, 1, 2, 0, 1, 2, 0]
DRAW = torch.Generator().manual_seed(0)
STATES, TOLD = (torch.randn(7, 4, generator=DRAW, dtype=torch.float64) for _ in range(2))


def loss(name: str, states: torch.Tensor, told: torch.Tensor, examples: list[int], **arguments: Any) -> torch.Tensor:
    method = find("objective", name)
    objective = method.factory(**method.arguments.model_validate(arguments).model_dump())
    torch.manual_seed(0)
    own = objective.modules({"last": 4}, {"last": 4}).double()
    for layer in own.values() if name == "contrast.dino" else [own]:
        torch.nn.init.eye_(layer.weight)
        if layer.bias is not None:
            torch.nn.init.zeros_(layer.bias)
    view = View(
        features={"last": states}, teacher_features={"last": told}, own=own,
        example_N=torch.tensor(examples), weight_N=torch.ones(len(examples), dtype=torch.float64),
    )  # fmt: skip
    return objective(view).value_N.detach()


def test_a_copy_is_told_from_other_examples_by_those_of_its_own() -> None:
    near = torch.nn.functional.normalize(STATES, dim=1) @ torch.nn.functional.normalize(TOLD, dim=1).T / 0.1
    found = loss("contrast.copies", STATES, TOLD, EXAMPLES)
    for i, example in enumerate(EXAMPLES):
        strange = [math.exp(near[i, j]) for j in range(7) if EXAMPLES[j] != example]
        own = [math.exp(near[i, j]) for j in range(7) if EXAMPLES[j] == example and j != i]
        assert float(found[i]) == pytest.approx(-sum(math.log(o / (o + sum(strange))) for o in own) / len(own))


def test_one_without_a_copy_has_no_part() -> None:
    assert loss("contrast.copies", STATES, TOLD, [0, 1, 2, 0, 1, 3, 0])[2] == 0
    assert loss("contrast.dino", STATES, TOLD, [0, 1, 2, 0, 1, 3, 0], prototypes=4)[2] == 0


def test_the_teachers_word_of_the_other_copies_is_centred_and_sharp() -> None:
    told = torch.nn.functional.normalize(TOLD, dim=1)
    p = ((told - told.mean(0)) / 0.04).softmax(1)
    log_q = (torch.nn.functional.normalize(STATES, dim=1) / 0.1).log_softmax(1)
    found = loss("contrast.dino", STATES, TOLD, EXAMPLES, prototypes=4)
    for i, example in enumerate(EXAMPLES):
        others = [p[j] for j in range(7) if EXAMPLES[j] == example and j != i]
        assert float(found[i]) == pytest.approx(float(-(sum(others) / len(others) * log_q[i]).sum()))


def test_two_sides_of_a_place_find_each_other() -> None:
    method = find("objective", "contrast.sides")
    view = View(features={"one": STATES, "other": TOLD}, weight_N=torch.ones(7, dtype=torch.float64))
    found = method.factory(tap="one", other="other", temperature=0.5)(view).value_N
    unit = [torch.nn.functional.normalize(each, dim=1) for each in (STATES, TOLD)]
    near = (unit[0] @ unit[1].T / 0.5).exp()
    for i in range(7):
        both = near[i, i] / near[i].sum(), near[i, i] / near[:, i].sum()
        assert float(found[i]) == pytest.approx(-sum(math.log(each) for each in both) / 2)
