"""Trials of messages between a student and a frozen teacher that learnt in a domain of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.trials.features import ACCURACY, LABELS, STATE, UNSEEN, WIDTH, Net, Taught, World, learnt, right, said
from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.core.methods import find
from pipeline.kinds.network import Seen
from pipeline.kinds.objective import Step
from pipeline.model.taps import Taps
from pipeline.tables import ids
from pipeline.training.places import Places
from pipeline.training.terms import Role, Term, loss_of

TURN, MOVED = 0.08, 0.3
CLASSES, HIDDEN, STATES = 8, 16, 12
ROWS, KNOWN, LESSONS, STEPS = 400, 40, 2000, 200


class Looked:
    """How the trainer looks at a network of two layers."""

    def look(self, model: nn.Module, inputs: Mapping[str, torch.Tensor], taps: Sequence[str]) -> Seen:
        net: Any = model
        with Taps(net, [name for name in taps if name != "last"]) as seen:
            last = net(inputs["points"])["last"]
        return Seen(last, dict(net.heads), {**seen, "last": last})

    def put(self, output: torch.Tensor, inputs: Mapping[str, torch.Tensor], make: Any) -> torch.Tensor:
        made: torch.Tensor = make(output)
        return made


def term(weight: float, name: str, where: str = "all", **given: object) -> Term:
    traits, objective = find("objective", name).traits, built("objective", name, **given)
    own = None
    if hasattr(objective, "modules"):
        own = objective.modules({"first": HIDDEN, "last": STATES}, {"first": 64, "last": STATE})
    return Term(weight, objective, frozenset(traits["reads"]), against="teacher", where=where, own=own)


def right_after(seed: int, sends: str) -> float:
    """What a student answers on unseen points that learnt from few labels and from messages beside them."""
    rng = ids.generator(seed, "exchange")
    world = World.drawn(rng, CLASSES, 2, 0.9)
    # The teacher's domain is the student's, turned by a small angle in every plane and moved.
    turn, _ = np.linalg.qr(np.eye(WIDTH) + TURN * rng.normal(size=(WIDTH, WIDTH)))
    moved = MOVED * rng.normal(size=WIDTH)
    points, cloud = world.points(rng, LESSONS)
    lessons = Taught((points @ turn + moved).astype("f4"), cloud % CLASSES, np.zeros((LESSONS, CLASSES), "f4"), {})
    teacher = learnt(seed, Net(seed, 64, STATE, {"main": CLASSES}), lessons, [(1.0, *LABELS[1:])])
    points, cloud = world.points(rng, ROWS)
    unseen, other = world.points(rng, UNSEEN)
    student = Net(seed + 1, HIDDEN, STATES, {"main": CLASSES})
    roles = {
        "student": Role(student, Looked(), True),  # type: ignore[arg-type]
        "teacher": Role(teacher.requires_grad_(False), Looked(), False),  # type: ignore[arg-type]
    }
    torch.manual_seed(seed)
    asked = {"tap": "first", "teacher_tap": "first", "agree": 0.3, "keep": 0.1, "sends": sends}
    terms = [
        term(1.0, "supervised.cross_entropy", where="labelled"),
        term(0.1, "exchange.messages", **asked),
    ]
    rows_N = torch.arange(ROWS)
    target_N = torch.where(rows_N < KNOWN, torch.from_numpy(cloud % CLASSES), -1)
    found = Places(target_N, rows_N, torch.ones(ROWS), rows_N, torch.zeros(ROWS), {})
    learns = [*student.parameters(), *(p for each in terms if each.own is not None for p in each.own.parameters())]
    optimizer, shown = torch.optim.Adam(learns, 1e-2), {"points": torch.from_numpy(points)}
    for step in range(STEPS):
        loss = loss_of(terms, shown, found, roles, Step(step, STEPS, 0, 1), {"place": ROWS})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return right(said(student, unseen), other % CLASSES)


@trial(
    "objective exchange.messages", after="Talking Models",
    control="the same maps, and a teacher that is not asked", measure=ACCURACY,
)  # fmt: skip
def messages(seed: int) -> FIGURES:
    """A teacher of another domain that is sent the student's states tells it more than one that is not asked."""
    return right_after(seed, "states"), right_after(seed, "nothing")


@trial(
    "objective exchange.messages", after="Talking Models",
    control="the same maps, and a message of zeros", measure=ACCURACY,
)  # fmt: skip
def messages_that_say_something(seed: int) -> FIGURES:
    """What the student sends to a teacher of another domain makes the answer worth more than that to nothing."""
    return right_after(seed, "states"), right_after(seed, "zeros")
