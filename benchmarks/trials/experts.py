"""Trials of students of several teachers, of states beside words, of tasks one after another, and of other domains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.trials.features import (
    ACCURACY,
    LABELS,
    PLAIN,
    SOFT,
    STATE,
    WIDTH,
    Net,
    Taught,
    World,
    beside,
    learnt,
    lesson,
    right,
    said,
)
from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.kinds.objective import DenseTeacher, View
from pipeline.tables import ids
from pipeline.training.reduce import reduce


@trial("objective feature.cosine", "transform classes.mean", after="VL2V-ADiP", control=PLAIN, measure=ACCURACY)
def image_and_words(seed: int) -> FIGURES:
    """A state that turns to the teacher's of the picture and to that of its class makes a better student."""
    return beside(seed, (1.0, "feature.cosine", {}, "main"), use="classes.mean")


def another_domain(seed: int) -> tuple[World, Taught, np.ndarray, np.ndarray]:
    """Labelled points, and points of the same classes that are moved and stretched, of unknown class, with what a
    network says of all that learnt from the first; and unseen points of the second kind."""
    rng = ids.generator(seed, "domains")
    world = World.drawn(rng, 6, 1, 1.0)
    moved, scale = 0.7 * rng.normal(size=WIDTH), rng.uniform(0.6, 1.4, WIDTH)

    def other(count: int) -> tuple[np.ndarray, np.ndarray]:
        points, cloud = world.points(rng, count)
        return (points * scale + moved).astype(np.float32), cloud

    (own, known), (strange, _), (unseen, answers) = world.points(rng, 300), other(300), other(4000)
    points = np.concatenate([own, strange])
    target_N = np.concatenate([known, np.full(300, -1)])
    first = Taught(own, known, np.zeros((300, 6), np.float32), {})
    net = learnt(seed, Net(seed, 12, 8, {"main": 6}), first, [(1.0, *LABELS[1:])])
    return world, replace(lesson(net, points, target_N), taps={}), unseen, answers


@trial(
    "objective feature.trajectory", after="optimization trajectory distillation",
    control="the same without the term: labels, and pseudo-labels of the model before", measure=ACCURACY,
)  # fmt: skip
def like_gradients(seed: int) -> FIGURES:
    """On another domain, a student whose head would be trained alike by both is better than one of pseudo-labels."""
    _, taught, unseen, answers = another_domain(seed)
    pseudo = np.where(taught.target_N >= 0, taught.target_N, taught.logits_NV.argmax(1))
    sure = replace(taught, logits_NV=(20 * np.eye(6, dtype=np.float32))[pseudo])
    figures = []
    for more in ([(1.0, "feature.trajectory", {}, "main")], []):
        net = learnt(seed, Net(seed + 1, 12, 8, {"main": 6}), sure, [LABELS, SOFT, *more])
        figures.append(right(said(net, unseen), answers))
    return figures[0], figures[1]


@trial(
    "objective feature.expert", "objective contrast.koleo", after="GPFM",
    control="a student of the best of the experts", measure=ACCURACY,
)  # fmt: skip
def three_experts(seed: int) -> FIGURES:
    """A student of three experts' states, each of which knows a third of the classes, tells all of them apart."""
    rng = ids.generator(seed, "experts")
    world = World.drawn(rng, 9, 1, 1.0)
    points, _ = world.points(rng, 600)
    few, classes = world.points(rng, 90)
    unseen, answers = world.points(rng, 4000)
    taps = {}
    for group in range(3):
        own, cloud = world.points(rng, 1000)
        known = cloud // 3 == group
        given = Taught(own[known], cloud[known] - 3 * group, np.zeros((int(known.sum()), 3), np.float32), {})
        net = learnt(seed, Net(seed + group, 64, STATE, {"main": 3}), given, [(1.0, *LABELS[1:])], 80)
        taps[f"expert_{group}"] = lesson(net, points, np.full(600, -1)).taps["last"]
    nothing = np.zeros((600, 9), np.float32)

    def probed(names: list[str]) -> float:
        """Of a student of these experts: a head that learns from a few labels, on states that stay."""
        taught = Taught(points, np.full(600, -1), nothing, {name: taps[name] for name in names})
        spread = (0.1, "contrast.koleo", {}, "main")
        terms = [*((1.0, "feature.expert", {"teacher_tap": name}, "main") for name in names), spread]
        net = learnt(seed, Net(seed + 9, 24, 16, {"main": 9}), taught, terms)
        for layer in (net.first, net.second):
            layer.requires_grad_(False)
        learnt(seed, net, Taught(few, classes, np.zeros((90, 9), np.float32), {}), [(1.0, *LABELS[1:])])
        return right(said(net, unseen), answers)

    return probed(list(taps)), max(probed([name]) for name in taps)


@trial(
    "objective routing.gate", after="MST-Distill", control="the mean of both teachers' distributions", measure=ACCURACY
)
def gated_teachers(seed: int) -> FIGURES:
    """A student that sees half of the numbers learns more where a gate chooses between a teacher of the same half and
    one of the other half than from the mean of both."""
    rng = ids.generator(seed, "gate")
    world = World.drawn(rng, 8, 1, 1.2)
    half = np.arange(WIDTH) < WIDTH // 2
    own, cloud = world.points(rng, 300)
    unseen, answers = world.points(rng, 4000)
    logits = []
    for number, seen in enumerate((half, ~half)):
        points, classes = world.points(rng, 1000)
        given = Taught(points * seen.astype(np.float32), classes, np.zeros((1000, 8), np.float32), {})
        net = learnt(seed, Net(seed + number, 64, STATE, {"main": 8}), given, [(1.0, *LABELS[1:])], 80)
        logits.append(said(net, own * seen.astype(np.float32)))
    mean = np.log(np.mean([torch.from_numpy(each).softmax(1).numpy() for each in logits], 0) + 1e-9)
    mine = half.astype(np.float32)
    taught = Taught(own * mine, cloud, mean, {"classifier": logits[0], "second": logits[1]})
    figures = []
    for term in ((0.5, "routing.gate", {"temperature": 1.0}, "main"), SOFT):
        net = learnt(seed, Net(seed + 3, 24, 16, {"main": 8}), taught, [LABELS, term])
        figures.append(right(said(net, unseen * mine), answers))
    return figures[0], figures[1]


TASKS, EACH = 5, 2


@trial(
    "objective contrast.supcon", "objective divergence.forward", after="prototype-sample relation distillation",
    control="the same without the relation to the old heads", measure="percent right of 4,000 unseen, the task told",
)  # fmt: skip
def tasks_in_a_row(seed: int) -> FIGURES:
    """Of five tasks one after another less is forgotten where new points lie to the old heads as they did before."""
    rng = ids.generator(seed, "tasks")
    world = World.drawn(rng, TASKS * EACH, 1, 1.0)
    lessons = []
    for task in range(TASKS):
        points, cloud = world.points(rng, 1000)
        own = cloud // EACH == task
        lessons.append((torch.from_numpy(points[own]), torch.from_numpy(cloud[own] % EACH)))
    unseen, answers = world.points(rng, 4000)
    figures = [_in_a_row(seed, lessons, share, unseen, answers) for share in (4.0, 0.0)]
    return figures[0], figures[1]


def _in_a_row(seed: int, lessons: Any, share: float, unseen: np.ndarray, answers: np.ndarray) -> float:
    """What a student gets right of all tasks after the last; each task has a head, which `share` keeps as it was."""
    net = Net(seed, 24, 16, {f"task_{task}": EACH for task in range(TASKS)})
    torch.manual_seed(seed)
    apart, alike, named = (
        built("objective", name) for name in ("contrast.supcon", "divergence.forward", "supervised.cross_entropy")
    )
    own = apart.modules({"last": 16}, {})
    for task, (points, target_N) in enumerate(lessons):
        with torch.no_grad():
            before = net(points)["last"]
            old = {head: DenseTeacher(net.heads[head](before)) for head in list(net.heads)[:task]}
        optimizer = torch.optim.Adam([*net.parameters(), *own.parameters()], 1e-2)
        for _ in range(60):
            features, ones = net(points), torch.ones(len(points))
            plain = View(features=features, target_N=target_N, weight_N=ones, own=own)
            # A head learns of states that do not move for it, as a prototype does.
            shown = replace(plain, student_NV=net.heads[f"task_{task}"](features["last"].detach()))
            losses = [apart(plain), named(shown)]
            total = reduce(losses, len(points))
            for head, teacher in old.items():
                view = replace(plain, student_NV=net.heads[head](features["last"]), teacher=teacher)
                total = total + share * reduce([alike(view)], len(points))
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
    with torch.no_grad():
        states = net(torch.from_numpy(unseen))["last"]
        found = np.stack([net.heads[f"task_{task}"](states).argmax(1).numpy() for task in range(TASKS)], 1)
    return 100 * float((found[np.arange(len(answers)), answers // EACH] == answers % EACH).mean())
