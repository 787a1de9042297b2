"""Trials of scorers: which of a teacher's answers may be believed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from benchmarks.trials.simulated import answers, candidates, regression, says
from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.kinds.selector import Budget
from pipeline.kinds.source import GivenRow
from pipeline.kinds.verifier import answer_of, metric_of
from pipeline.scorers.program import strategy
from pipeline.tables import ids

TESTS = {"informative": 0.45, "always passed": 0.2, "always failed": 0.2, "random": 0.15}


@trial(
    "scorer consistency.uncontradicted",
    after="NeuroComparatives",
    control="all answers",
    measure="right among the answers that are kept",
)
def uncontradicted(seed: int) -> FIGURES:
    """Of twenty answers those are kept that more siblings share than contradict, and these are right."""
    rng = ids.generator(seed, "neurocomparatives")
    prompts, said = [], []
    for prompt in range(300):
        # On average 60 % right; prompts differ, and so does how far the wrong answers agree.
        sure, wrong = rng.beta(3, 2), rng.dirichlet(np.full(8, 0.7))
        for _ in range(20):
            prompts.append(f"p{prompt}")
            said.append("right" if rng.random() < sure else f"wrong {rng.choice(8, p=wrong)}")
    found = built("scorer", "consistency.uncontradicted")(answers(prompts, said))
    kept, right = found["score"].to_numpy() == 1, np.array(said) == "right"
    return float(right[kept].mean()), float(right.mean())


@trial(
    "scorer paraphrase.pairs",
    after="Impossible Distillation",
    control="pairs of siblings by chance",
    measure="pairs that say the same, of pairs in other words",
)
def pairs(seed: int) -> FIGURES:
    """Pairs mined among a weak teacher's sentences say the same in other words."""
    rng = ids.generator(seed, "impossible")
    more, less = (
        ("{a} has {n} {things} more than {b}.", "Compared with {b}, {a} owns an additional {n} {things}.",
         "{b} would need {n} further {things} to catch up with {a}.", "The lead of {a} over {b} is {n} {things}."),
        ("{a} has {n} {things} fewer than {b}.", "Compared with {b}, {a} lacks {n} {things}.",
         "{a} would need {n} further {things} to catch up with {b}.", "The lead of {b} over {a} is {n} {things}."),
    )  # fmt: skip
    prompts, said, meant, short = [], [], [], []
    for prompt in range(120):
        a, b = rng.permutation(["Anna", "Ben", "Clara", "David", "Emil"])[:2]
        things, number = rng.choice(["apples", "books", "coins"]), int(rng.integers(2, 60))
        for _ in range(12):
            # It is wrong about the number, or about who has more.
            n = number + (int(rng.integers(1, 9)) if rng.random() < 0.3 else 0)
            direction = rng.random() < 0.1
            sentence = rng.choice(less if direction else more).format(a=a, b=b, n=n, things=things)
            prompts.append(f"p{prompt}"), said.append(sentence), meant.append((n, direction)), short.append(str(n))
    rows = answers(
        prompts, short, content=pa.array(said), verifier=pa.array(["numeric.last"] * len(said)),
    )  # fmt: skip
    details = built("scorer", "paraphrase.pairs")(rows)["detail"].to_pylist()
    mined = [(i, int(name)) for i, detail in enumerate(details) for name in (detail or "").split()]
    drawn = rng.integers(12, size=(len(mined), 2)) + 12 * rng.integers(120, size=(len(mined), 1))

    def alike(couples: list[tuple[int, int]]) -> float:
        other = [(i, j) for i, j in couples if said[i] != said[j]]
        return float(np.mean([meant[i] == meant[j] for i, j in other]))

    return alike(mined), alike([(int(i), int(j)) for i, j in drawn])


def cross_runs(rng: np.random.Generator, programs: int = 16, tests: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Which programs pass which tests, 1 or 0, [M, N], and which programs are right, [M]."""
    bugs = rng.random((programs, 6)) < 0.25
    kinds = rng.choice(list(TESTS), tests, p=list(TESTS.values()))
    sees = rng.random((tests, 6)) < 0.6
    matrix = (~(bugs[:, None] & sees[None]).any(2)).astype(float)
    matrix[:, kinds == "always passed"], matrix[:, kinds == "always failed"] = 1.0, 0.0
    guessed = kinds == "random"
    matrix[:, guessed] = rng.random((programs, int(guessed.sum()))) < 0.5
    return matrix, ~bugs.any(1)


@trial(
    "scorer program.cross",
    after="EvoSyn",
    control="tests by how many programs pass them",
    measure="instances whose best test judges as people do",
)
def evosyn(seed: int) -> FIGURES:
    """The test that tells good programs from bad ones judges as a person's does; the most-passed test does not."""
    rng = ids.generator(seed, "evosyn")
    found = np.zeros((60, 2))
    for instance in range(len(found)):
        matrix, right = cross_runs(rng)
        ranked = strategy(matrix)
        best = int(np.lexsort((-ranked.discriminates, ranked.constant))[0])
        for way, (test, order) in enumerate((
            (best, np.argsort(-ranked.solves, kind="stable")),
            (int(matrix.sum(0).argmax()), np.argsort(-matrix.sum(1), kind="stable")),
        )):  # fmt: skip
            ends = np.r_[order[:8], order[-8:]]
            found[instance, way] = right[order[0]] and ((matrix[ends, test] == 1) == right[ends]).all()
    return float(found[:, 0].mean()), float(found[:, 1].mean())


def slipped(seed: int) -> Iterator[GivenRow]:
    """Worked solutions of the shipped tasks, of which three in ten carry a misconception."""
    return built("source", "procedural.tasks", rows=2400, seed=ids.seed_of(seed, "critic"), slip=0.3)


@trial(
    "scorer critic.linear",
    "source procedural.tasks",
    after="Symbolic KD",
    control="all answers that it has no label of",
    measure="right among the half that it scores highest",
)
def critic(seed: int) -> FIGURES:
    """A critic that learnt from a tenth of the answers finds right ones among the others."""
    given = [row.columns for row in slipped(seed)]
    said, verifier = [row["solution"] for row in given], given[0]["verifier"]
    rows = answers(
        [f"p{i}" for i in range(len(given))], [answer_of(verifier, text) for text in said],
        content=pa.array(said), messages=[row["messages"] for row in given],
        verifier=pa.array([verifier] * len(given)), reference=pa.array([row["reference"] for row in given]),
    )  # fmt: skip
    found = built("scorer", "critic.linear", labelled=0.1)([rows])(rows)
    cases = zip(*(rows[name].to_pylist() for name in ("verifier", "answer", "reference")), strict=True)
    right = np.array([metric_of(*case) for case in cases])
    unknown = np.array([dict(row)["labelled"] == 0 for row in found["quantities"].to_pylist()])
    score, right = found["score"].to_numpy()[unknown], right[unknown]
    half = np.argsort(-score, kind="stable")[: len(score) // 2]
    return float(right[half].mean()), float(right.mean())


def taught_by_four(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Labels of four teachers, of tasks that are turned away from ours by so much, to 400 points: columns, points,
    labels, and unseen points with the right labels."""
    rng = ids.generator(seed, "teachers")
    classes, width = 5, 10
    centres = rng.normal(size=(classes, width))

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(classes, size=count)
        return centres[labels] + 0.9 * rng.normal(size=(count, width)), labels

    other = np.linalg.qr(rng.normal(size=(width, width)))[0]
    points, _ = drawn(400)
    known, truth = drawn(30)
    labels, similarity = [], []
    for share in rng.permutation([0.05, 0.3, 0.6, 0.9]):
        of, told = drawn(300)
        turned = (1 - share) * of + share * of @ other
        teacher = regression(turned, np.eye(classes)[told])
        labels.append(says(teacher, points).argmax(1))
        # Kappa on what few labels there are.
        similarity.append((float((says(teacher, known).argmax(1) == truth).mean()) * classes - 1) / (classes - 1))
    prompts = np.tile(np.array([f"p{i:03d}" for i in range(len(points))], object), 4)
    columns = {"prompts": prompts, "similarity": np.repeat(similarity, len(points))}
    return columns, np.tile(points, (4, 1)), np.concatenate(labels), drawn(2000)


def by_teachers(seed: int, selector: str, one: bool, **arguments: str) -> float:
    """Accuracy of a student of what a selector keeps, by its weights."""
    columns, points, labels, (unseen, truth) = taught_by_four(seed)
    given = candidates(len(labels), **columns)
    found = built("selector", selector, **arguments)(given, Budget(one_per_prompt=one), seed)
    kept = found.kept
    student = regression(points[kept], np.eye(5)[labels[kept]], found.weight[kept])
    return float((says(student, unseen).argmax(1) == truth).mean())


@trial(
    "selector teachers.distill_weighted",
    "selector sampling.random",
    after="DistillWeighted",
    control="all four teachers alike",
    measure="accuracy of the student",
)
def distill_weighted(seed: int) -> FIGURES:
    """Teachers weighted by how alike their task is to ours teach more than all alike."""
    ours = by_teachers(seed, "teachers.distill_weighted", False, similarity="similarity")
    return ours, by_teachers(seed, "sampling.random", False)


@trial(
    "selector rank.top",
    "selector sampling.random",
    after="DistillNearest",
    control="a teacher by chance for every prompt",
    measure="accuracy of the student",
)
def distill_nearest(seed: int) -> FIGURES:
    """The teacher whose task is most alike teaches more than one by chance."""
    return by_teachers(seed, "rank.top", True, by="similarity"), by_teachers(seed, "sampling.random", True)


@trial(
    "selector teachers.distill_weighted",
    "selector rank.top",
    after="DistillWeighted",
    control="the nearest teacher alone",
    measure="accuracy of the student",
)
def weighted_over_nearest(seed: int) -> FIGURES:
    """Several teachers by weight teach more than the nearest alone."""
    ours = by_teachers(seed, "teachers.distill_weighted", False, similarity="similarity")
    return ours, by_teachers(seed, "rank.top", True, by="similarity")
