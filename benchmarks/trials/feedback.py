"""Trials of what a student itself says of a lesson, and of what a teacher answers beside the class."""

from __future__ import annotations

import numpy as np

from benchmarks.trials.features import ACCURACY, LABELS, STATE, UNSEEN, Net, Taught, World, learnt, right, said
from benchmarks.trials.simulated import Classes, regression, says, with_constant
from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.kinds.backend import Reading
from pipeline.tables import ids

CLASSES, RATE = 6, 0.3


@trial(
    "reader influence.one_step",
    after="ARTE",
    control="as many by chance",
    measure="right of unseen items",
)
def one_step(seed: int) -> FIGURES:
    """The quarter of a teacher's answers from which one step helps a student most teaches it more."""
    rng = ids.generator(seed, "arte")
    world = Classes.drawn(rng, CLASSES, 8, 1.2)
    truth = {name: rng.integers(CLASSES, size=size) for name, size in (("known", 30), ("held", 100), ("asked", 3000))}
    points = {name: world.points(rng, labels) for name, labels in truth.items()}
    given = rng.integers(CLASSES, size=400)
    shown = world.points(rng, given)
    # A third of what the teacher says is wrong.
    taught = np.where(rng.random(400) < 1 / 3, rng.integers(CLASSES, size=400), given)
    weights, one_hot = regression(points["known"], np.eye(CLASSES)[truth["known"]]), np.eye(CLASSES)
    reader = built("reader", "influence.one_step")

    def loss(of: np.ndarray) -> float:
        share = says(of, points["held"])
        return float(-np.log(share[np.arange(100), truth["held"]] + 1e-12).mean())

    before, score = loss(weights), []
    for point, label in zip(with_constant(shown), taught, strict=True):
        slope = np.outer(point, says(weights, point[None, :-1])[0] - one_hot[label])
        after = loss(weights - RATE * slope)
        score.append(reader(Reading("", np.zeros(1), descent=np.array([before, after])))["score"])

    def student(rows: np.ndarray) -> float:
        learnt_from = np.vstack([points["known"], shown[rows]]), np.concatenate([truth["known"], taught[rows]])
        found = regression(learnt_from[0], one_hot[learnt_from[1]])
        return float((says(found, points["asked"]).argmax(1) == truth["asked"]).mean())

    return student(np.argsort(score)[-100:]), student(rng.permutation(400)[:100])


@trial(
    "objective targets.binary",
    after="multi-aspect distillation",
    control="the same answers, permuted over the rows",
    measure=ACCURACY,
)
def aspects(seed: int) -> FIGURES:
    """Yes and no to a dozen questions about every row, a tenth of them wrong, teach beside few labels."""
    rng = ids.generator(seed, "aspects")
    classes, questions, rows = 8, 12, 64
    world = World.drawn(rng, classes, 1, 2.5)
    points, target_N = world.points(rng, rows)
    asked, truth = world.points(rng, UNSEEN)
    truths = rng.random((classes, questions)) < 0.5
    told = np.where(rng.random((rows, questions)) < 0.1, ~truths[target_N], truths[target_N]).astype(np.float32)

    def student(answers: np.ndarray) -> float:
        net = Net(seed, 32, STATE, {"main": classes, "aspects": questions})
        taught = Taught(points, target_N, np.zeros((rows, classes), np.float32), {"aspects": answers})
        terms = [LABELS, (0.5, "targets.binary", {"teacher_tap": "aspects"}, "aspects")]
        return right(said(learnt(seed, net, taught, terms), asked), truth)

    return student(told), student(told[rng.permutation(rows)])
