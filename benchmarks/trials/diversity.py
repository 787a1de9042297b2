"""Trials of selectors that want what is unlike the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.trials.simulated import Classes, candidates, chosen, neighbour, regression, says
from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.tables import ids

CLASSES, WIDTH, ROUNDS, QUERIES = 12, 8, 5, 10
TAIL = (200 * 0.7 ** np.arange(CLASSES)).astype(int) + 4


def queried(seed: int, selector: str, rounds: int) -> tuple[float, int]:
    """Balanced accuracy of a student of two heads, and classes covered, after so many rounds on a long-tailed pool."""
    rng = ids.generator(seed, "pcoreset")
    world = Classes.drawn(rng, CLASSES, WIDTH, 0.7)
    labels = np.repeat(np.arange(CLASSES), TAIL)[rng.permutation(TAIL.sum())]
    pool = world.points(rng, labels)
    asked = np.repeat(np.arange(CLASSES), 100)
    unseen = world.points(rng, asked)
    # What a teacher without examples says of the pool: it knows roughly where the classes are.
    rough = world.centres + 0.5 * rng.normal(size=world.centres.shape)
    told = np.exp(-((pool[:, None] - rough) ** 2).sum(2) / 2)
    told /= told.sum(1, keepdims=True)
    by_teacher, labelled = regression(pool, told), np.zeros(len(pool), bool)

    def student(points: np.ndarray) -> np.ndarray:
        share = says(by_teacher, points)
        if not labelled.any():
            return share
        return (share + says(regression(pool[labelled], np.eye(CLASSES)[labels[labelled]]), points)) / 2

    vector = {"diversity.pcoreset": lambda: student(pool), "diversity.k_center": lambda: pool}.get(selector)
    for turn in range(rounds):
        given = {"labelled": labelled.astype(float)} | ({"vector": vector()} if vector else {})
        if vector is None:
            order = rng.permutation(np.flatnonzero(~labelled))[:QUERIES]
        else:
            order = chosen(
                built("selector", selector, vector="vector", labelled="labelled"),
                candidates(len(pool), **given), QUERIES, turn,
            )  # fmt: skip
        labelled[order] = True
    right = student(unseen).argmax(1) == asked
    return float(right.mean()), len(set(labels[labelled]))


@trial(
    "selector diversity.pcoreset",
    after="PCoreSet",
    control="random queries",
    measure="classes that the first 10 queries cover",
)
def pcoreset_covers(seed: int) -> FIGURES:
    """Spread in the student's own distributions, the first queries meet more classes of a long-tailed pool."""
    return queried(seed, "diversity.pcoreset", 1)[1], queried(seed, "random", 1)[1]


@trial(
    "selector diversity.pcoreset",
    after="PCoreSet",
    control="random queries",
    measure="balanced accuracy after 50 queries",
)
def pcoreset(seed: int) -> FIGURES:
    """Labels asked for where the student's distributions are spread teach more than as many random ones."""
    return queried(seed, "diversity.pcoreset", ROUNDS)[0], queried(seed, "random", ROUNDS)[0]


@trial(
    "selector diversity.pcoreset",
    "selector diversity.k_center",
    after="PCoreSet",
    control="the same algorithm on the features",
    measure="balanced accuracy after 50 queries",
)
def pcoreset_over_features(seed: int) -> FIGURES:
    """Distributions are better to spread in than features are."""
    return queried(seed, "diversity.pcoreset", ROUNDS)[0], queried(seed, "diversity.k_center", ROUNDS)[0]


def topics(seed: int, name: str) -> tuple[Classes, np.ndarray, np.ndarray, np.random.Generator]:
    """Forty topics of a long tail in a pool of 1,500, as directions."""
    rng = ids.generator(seed, name)
    world = Classes.drawn(rng, 40, 16, 0.7)
    share = 1 / np.arange(1, 41)
    labels = rng.choice(40, 1500, p=share / share.sum())
    return world, labels, world.points(rng, labels), rng


def taught(
    world: Classes, points: np.ndarray, labels: np.ndarray, choices: Sequence[np.ndarray], rng: np.random.Generator
) -> FIGURES:
    """Balanced accuracy of students of two choices, which say what they learnt of the nearest point."""
    asked = np.repeat(np.arange(len(world.centres)), 25)
    unseen = world.points(rng, asked)
    first, second = (float((neighbour(points[some], labels[some], unseen) == asked).mean()) for some in choices)
    return first, second


@trial(
    "selector redundancy.deita",
    "selector rank.top",
    after="DEITA",
    control="the best scores alone, as many rows",
    measure="balanced accuracy of the student",
)
def deita(seed: int) -> FIGURES:
    """Of rows with high scores those are kept that are unlike the others, and the student meets more topics."""
    world, labels, points, rng = topics(seed, "deita")
    quality, complexity = rng.uniform(0.2, 1, (2, len(labels)))
    # What is of low quality is often wrong.
    said = np.where(rng.random(len(labels)) < 0.5 + quality / 2, labels, rng.integers(40, size=len(labels)))
    given = candidates(len(labels), vector=points, quality=quality, complexity=complexity, product=quality * complexity)
    ours = chosen(
        built("selector", "redundancy.deita", complexity="complexity", quality="quality", vector="vector"),
        given, 100, seed,
    )  # fmt: skip
    theirs = chosen(built("selector", "rank.top", by="product"), given, 100, seed)
    return taught(world, points, said, (ours, theirs), rng)


@trial(
    "selector redundancy.semdedup",
    "selector sampling.random",
    after="SemDeDup",
    control="as many random rows",
    measure="balanced accuracy of the student",
)
def semdedup(seed: int) -> FIGURES:
    """Without what means nearly the same, as many rows teach more."""
    world, labels, points, rng = topics(seed, "semdedup")
    # Every row is there up to eight times, in words that hardly differ.
    copies = rng.integers(1, 9, len(labels))
    labels, points = np.repeat(labels, copies), np.repeat(points, copies, axis=0)
    points = points + 0.02 * rng.normal(size=points.shape)
    given = candidates(len(labels), vector=points)
    ours = chosen(built("selector", "redundancy.semdedup", vector="vector"), given, 200, seed)
    theirs = chosen(built("selector", "sampling.random"), given, 200, seed)
    return taught(world, points, labels, (ours, theirs), rng)


@trial(
    "selector submodular.facility_location",
    "selector sampling.random",
    after="facility location",
    control="as many random rows",
    measure="balanced accuracy of the student",
)
def facility_location(seed: int) -> FIGURES:
    """Few rows that stand for all teach more topics of a long tail than random ones."""
    world, labels, points, rng = topics(seed, "facility")
    given = candidates(len(labels), vector=points)
    ours = chosen(built("selector", "submodular.facility_location", vector="vector"), given, 80, seed)
    theirs = chosen(built("selector", "sampling.random"), given, 80, seed)
    return taught(world, points, labels, (ours, theirs), rng)


@trial(
    "selector rank.top",
    after="KD3",
    control="the same by the teacher's confidence, once",
    measure="accuracy of the student",
)
def kd3(seed: int) -> FIGURES:
    """Rows chosen anew in three rounds, by what teacher and student believe together, teach more."""
    rng = ids.generator(seed, "kd3")
    world = Classes.drawn(rng, 6, 8, 0.8)
    labels = rng.integers(6, size=500)
    # Half of the pool belongs to no class.
    pool = np.concatenate([world.points(rng, labels), 2.5 * rng.normal(size=(500, 8))])
    asked = rng.integers(6, size=2000)
    unseen = world.points(rng, asked)
    own = rng.integers(6, size=60)
    teacher = regression(world.points(rng, own), np.eye(6)[own])
    told = says(teacher, pool)
    select = built("selector", "rank.top", by="sure")

    def kept(share: np.ndarray) -> np.ndarray:
        return chosen(select, candidates(len(pool), sure=share.max(1)), 300, seed)

    rows = by_teacher = kept(told)
    for _ in range(3):
        rows = kept((told + says(regression(pool[rows], told[rows]), pool)) / 2)

    def right(some: np.ndarray) -> float:
        return float((says(regression(pool[some], told[some]), unseen).argmax(1) == asked).mean())

    return right(rows), right(by_teacher)
