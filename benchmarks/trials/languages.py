"""Trials of a student that reads a language which its teacher does not."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.trials.features import ACCURACY, UNSEEN, WIDTH, World, right, teacher
from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.kinds.objective import View
from pipeline.tables import ids
from pipeline.training.reduce import reduce

# A translator of so many states, which has seen so many sentences in both languages.
STATES, PARALLEL, LESSONS, STEPS = 12, 300, 1000, 150
NOISE = 0.3


class Translator(nn.Module):
    """An encoder of both languages, and what makes a sentence of the first one of its states."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(WIDTH + 1, 48), nn.ReLU(), nn.Linear(48, STATES))
        self.decoder = nn.Linear(STATES, WIDTH)

    def states(self, sentences: np.ndarray, language: int) -> torch.Tensor:
        told = torch.full((len(sentences), 1), float(language))
        found: torch.Tensor = self.encoder(torch.cat([torch.from_numpy(sentences), told], 1))
        return found


def _trained(parameters: Any, loss: Any) -> None:
    optimizer = torch.optim.Adam(parameters, 1e-2)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


@functools.cache
def zero_shot(seed: int) -> dict[str, float]:
    """What is right of the second language, in which no task was ever shown, by way of reading it."""
    rng = ids.generator(seed, "languages")
    world = World.drawn(rng, 6, 2, 0.6)
    order, sign = rng.permutation(WIDTH), rng.choice((-1.0, 1.0), WIDTH)

    def cipher(points: np.ndarray) -> np.ndarray:
        noise = NOISE * rng.normal(size=points.shape)
        return (points[:, order] * sign + noise).astype(np.float32)

    backbone = teacher(seed, world, rng, 2000).requires_grad_(False)
    torch.manual_seed(seed)
    translator = Translator()
    both, _ = world.points(rng, PARALLEL)
    second, meant = cipher(both), torch.from_numpy(both)
    _trained(
        translator.parameters(),
        lambda: sum(
            (translator.decoder(translator.states(each, language)) - meant).square().mean()
            for language, each in enumerate((both, second))
        ),
    )
    unseen, cloud = world.points(rng, UNSEEN)
    asked, wanted = cipher(unseen), cloud % world.classes

    def named(states: torch.Tensor) -> float:
        return right(backbone.heads["main"](states).numpy(), wanted)

    with torch.no_grad():
        translated = translator.decoder(translator.states(asked, 1))
        alone, tested = (named(backbone(points)["last"]) for points in (torch.from_numpy(asked), translated))
    # The student: the encoder as it is, a map into what the backbone reads, a backbone that learns, and the own map.
    up, student, objective = nn.Linear(STATES, WIDTH), copy.deepcopy(backbone), built("objective", "feature.hidden")
    width = backbone.heads["main"].in_features
    own = objective.modules({"last": width}, {"last": width})
    lessons, _ = world.points(rng, LESSONS)
    with torch.no_grad():
        told, read, second = (
            backbone(torch.from_numpy(lessons))["last"], translator.states(lessons, 0), translator.states(asked, 1),
        )  # fmt: skip

    def apart() -> torch.Tensor:
        states = student(up(read))["last"]
        view = View(features={"last": states}, teacher_features={"last": told}, own=own, weight_N=torch.ones(LESSONS))
        return reduce([objective(view)], LESSONS)

    student.requires_grad_(True)
    _trained([*up.parameters(), *student.parameters(), *own.parameters()], apart)
    with torch.no_grad():
        joined = named(own(student(up(second))["last"]))
    return {"alone": alone, "translated": tested, "joined": joined}


@trial(
    "objective feature.hidden", after="MT-LLM", control="the teacher, which reads its own language", measure=ACCURACY,
)  # fmt: skip
def another_language(seed: int) -> FIGURES:
    """A translator's encoder that makes a teacher's states of one language knows its task in another, too."""
    return zero_shot(seed)["joined"], zero_shot(seed)["alone"]


@trial(
    "objective feature.hidden", after="MT-LLM", control="what the translator makes of it, named by the teacher",
    measure=ACCURACY,
)  # fmt: skip
def another_language_over_translations(seed: int) -> FIGURES:
    """It knows it better than the teacher knows what was translated."""
    return zero_shot(seed)["joined"], zero_shot(seed)["translated"]
