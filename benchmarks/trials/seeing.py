"""Trials of a student that learns of a larger model what it says, by whose eyes it says it, and what is preferred."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.trials.exchange import CLASSES, HIDDEN, STATES, Looked, term
from benchmarks.trials.features import ACCURACY, LABELS, STATE, UNSEEN, Net, Taught, World, learnt, right, said
from benchmarks.trials.trial import FIGURES, trial
from pipeline.kinds.objective import Step
from pipeline.tables import ids
from pipeline.training.places import Places
from pipeline.training.terms import Role, Term, loss_of

ROWS, KNOWN, LESSONS = 300, 80, 1000
# Steps and rate of learning and, on right and wrong answers, of going on, which costs the control less than 3e-3 does.
STEPS, RATE, FURTHER, SLOWER = 100, 1e-2, 40, 3e-4


@dataclass(frozen=True)
class Taken:
    """A teacher, an untaught student, points and what is known of them, other points, and unseen ones."""

    teacher: Net
    student: Net
    points: np.ndarray
    target_N: torch.Tensor
    others: np.ndarray
    wanted: np.ndarray
    unseen: np.ndarray
    asked: np.ndarray


@functools.cache
def taken(seed: int) -> Taken:
    """The world of a seed."""
    rng = ids.generator(seed, "seeing")
    world = World.drawn(rng, CLASSES, 2, 0.9)
    lessons, cloud = world.points(rng, LESSONS)
    given = Taught(lessons, cloud % CLASSES, np.zeros((LESSONS, CLASSES), "f4"), {})
    teacher = learnt(seed, Net(seed, 64, STATE, {"main": CLASSES}), given, [(1.0, *LABELS[1:])])
    points, cloud = world.points(rng, ROWS)
    others, other = world.points(rng, ROWS)
    unseen, asked = world.points(rng, UNSEEN)
    target_N = torch.where(torch.arange(ROWS) < KNOWN, torch.from_numpy(cloud % CLASSES), -1)
    student = Net(seed + 1, HIDDEN, STATES, {"main": CLASSES})
    return Taken(
        teacher.requires_grad_(False), student, points, target_N, others, other % CLASSES, unseen, asked % CLASSES
    )


def taught(
    net: Net, teacher: Net, points: np.ndarray, found: Places, terms: Sequence[Term], steps: int, rate: float
) -> Net:
    """A student that has gone so many steps on; what it begins with stays as it is."""
    net = copy.deepcopy(net)
    roles = {"student": Role(net, Looked(), True), "teacher": Role(teacher, Looked(), False)}  # type: ignore[arg-type]
    learns = [*net.parameters(), *(p for each in terms if each.own is not None for p in each.own.parameters())]
    optimizer, shown = torch.optim.Adam(learns, rate), {"points": torch.from_numpy(points)}
    for step in range(steps):
        loss = loss_of(terms, shown, found, roles, Step(step, steps, 0, 1), found.counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


@functools.cache
def of_rows(seed: int, *names: str) -> Net:
    """A student of few labels, and of what the teacher says of all rows."""
    t, rows_N = taken(seed), torch.arange(ROWS)
    torch.manual_seed(seed)
    taps = {"tap": "first", "teacher_tap": "first"}
    terms = [term(1.0, name, **(taps if name == "exchange.switch" else {})) for name in names]
    labels = term(1.0, "supervised.cross_entropy", where="labelled")
    found = Places(t.target_N, rows_N, torch.ones(ROWS), rows_N, torch.zeros(ROWS), {"place": ROWS, "labelled": KNOWN})
    return taught(t.student, t.teacher, t.points, found, [labels, *terms], STEPS, RATE)


def scored(seed: int, net: Net) -> float:
    return right(said(net, taken(seed).unseen), taken(seed).asked)


@trial(
    "objective exchange.switch", "objective ranking.dbild", after="Switch-KD",
    control="labels and `ranking.dbild` of the same teacher, as many steps", measure=ACCURACY,
)  # fmt: skip
def switch(seed: int) -> FIGURES:
    """What a teacher would say, had it the student's first layer, teaches that layer to see."""
    both = of_rows(seed, "ranking.dbild", "exchange.switch")
    return scored(seed, both), scored(seed, of_rows(seed, "ranking.dbild"))


@trial(
    "objective divergence.forward", after="LLaVA-MoD", control="the labels alone, as many steps", measure=ACCURACY,
)  # fmt: skip
def mimics(seed: int) -> FIGURES:
    """What a larger model says of all rows teaches more than the labels of a quarter of them."""
    return scored(seed, of_rows(seed, "divergence.forward")), scored(seed, of_rows(seed))


def further(seed: int, name: str, against: str = "teacher") -> float:
    """What the mimic of the teacher has right that goes on with right answers to points that it names wrong, beside its
    own answers, or where that is cross-entropy alone."""
    t, mimic = taken(seed), of_rows(seed, "divergence.forward")
    own = said(mimic, t.others).argmax(1)
    wrong = np.flatnonzero(own != t.wanted)
    alone = name == "supervised.cross_entropy"
    row_N = wrong if alone else np.concatenate([wrong, wrong])
    answer_N = torch.from_numpy(np.where(np.arange(len(row_N)) < len(wrong), t.wanted[row_N], own[row_N]))
    number_N = torch.arange(len(row_N))
    counts = {"place": len(row_N), "labelled": len(row_N), "set": len(wrong)}
    reward_N = (number_N < len(wrong)).float()
    found = Places(answer_N, number_N, torch.ones(len(row_N)), number_N % len(wrong), reward_N, counts)
    told = term(1.0, name)
    if not alone:
        told = Term(1.0, told.objective, told.reads, "set", "set", alone=False, whole=True, against="teacher")
    leader = t.teacher if against == "teacher" else mimic
    return scored(seed, taught(mimic, leader, t.others[row_N], found, [told], FURTHER, SLOWER))


@trial(
    "objective pairs.kto", after="LLaVA-MoD", control="cross-entropy on the right answers alone, as many steps",
    measure=ACCURACY,
)  # fmt: skip
def preferred_to_its_own(seed: int) -> FIGURES:
    """Right answers before a student's own wrong ones, with the teacher as reference, teach it more."""
    return further(seed, "pairs.kto"), further(seed, "supervised.cross_entropy")


@trial(
    "objective preference.dpo", after="LightGen", control="cross-entropy on the right answers alone, as many steps",
    measure=ACCURACY,
)  # fmt: skip
def before_its_own(seed: int) -> FIGURES:
    """Right answers before a student's own wrong ones, with itself as reference, teach it more."""
    return further(seed, "preference.dpo", "start"), further(seed, "supervised.cross_entropy")
