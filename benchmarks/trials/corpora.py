"""Trials of selectors that choose texts by what models or words say of them."""

from __future__ import annotations

import numpy as np

from benchmarks.trials.simulated import Ngrams, candidates, chain, chosen, regression, says, walks
from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.tables import ids

SYMBOLS, LENGTH, EACH, KEPT = 12, 42, 600, 300
LOSS = "loss on held-out texts, nats a token"


def a_third_each(seed: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Structured texts, noise and repeats of one symbol, with what a teacher and a small model of them say; texts that
    nobody has seen."""
    rng = ids.generator(seed, "miniplm")
    truth = chain(rng, SYMBOLS**2, SYMBOLS, 0.1)

    def mixed(each: int) -> np.ndarray:
        noise = rng.integers(SYMBOLS, size=(each, LENGTH))
        trivial = np.repeat(rng.integers(SYMBOLS, size=(each, 1)), LENGTH, axis=1)
        return np.concatenate([walks(rng, truth, each, LENGTH), noise, trivial])

    teacher, small = Ngrams.learnt(mixed(1500), SYMBOLS, 3), Ngrams.learnt(mixed(150), SYMBOLS, 2)
    texts = mixed(EACH)
    read = {"teacher": teacher.nll(texts), "reference": small.nll(texts)}
    return texts, read | {"sure": -read["teacher"]}, walks(rng, truth, 300, LENGTH)


def loss(texts: np.ndarray, unseen: np.ndarray) -> float:
    return float(Ngrams.learnt(texts, SYMBOLS, 3).nll(unseen).mean())


def difference_sampling(seed: int, control: str, **arguments: str) -> FIGURES:
    texts, read, unseen = a_third_each(seed)
    given = candidates(len(texts), **read)
    ours = chosen(built("selector", "rank.miniplm", reference="reference", teacher="teacher"), given, KEPT, seed)
    theirs = chosen(built("selector", control, **arguments), given, KEPT, seed)
    return loss(texts[ours], unseen), loss(texts[theirs], unseen)


@trial(
    "selector rank.miniplm",
    "selector sampling.random",
    after="MiniPLM",
    control="as many random texts",
    measure=LOSS,
    less=True,
)
def miniplm(seed: int) -> FIGURES:
    """What the teacher knows and a small model does not teaches more than noise and trivial text do."""
    return difference_sampling(seed, "sampling.random")


@trial(
    "selector rank.miniplm",
    "selector rank.top",
    after="MiniPLM",
    control="the texts that the teacher finds likeliest",
    measure=LOSS,
    less=True,
)
def miniplm_over_perplexity(seed: int) -> FIGURES:
    """The difference of two models tells more than the teacher's perplexity alone."""
    return difference_sampling(seed, "rank.top", by="sure")


@trial(
    "selector target.dsir",
    "selector sampling.random",
    after="DSIR",
    control="as many random texts",
    measure="loss on texts of the target, nats a word",
    less=True,
)
def dsir(seed: int) -> FIGURES:
    """A sample whose words are spread as the target's are teaches the target more."""
    rng = ids.generator(seed, "dsir")
    words = 200
    spreads = rng.dirichlet(np.full(words, 0.3), 5)

    def drawn(source: int, rows: int) -> np.ndarray:
        return rng.choice(words, (rows, 20), p=spreads[source])

    # Of five sources the first is the target's: a fifth of the pool, and some rows that are known to be the target's.
    target, unseen = drawn(0, 50), drawn(0, 300)
    pool = np.concatenate([drawn(source, 400) for source in range(5)])
    texts = np.concatenate([target, pool])
    given = candidates(
        len(texts),
        text=np.array([" ".join(f"w{word}" for word in row) for row in texts], object),
        target=(np.arange(len(texts)) < len(target)).astype(float),
    )
    ours = chosen(built("selector", "target.dsir", text="text", target="target"), given, 300, seed)
    theirs = rng.permutation(len(pool))[: len(ours)] + len(target)

    def student(rows: np.ndarray) -> float:
        counts = np.bincount(texts[rows].ravel(), minlength=words) + 0.5
        return float(-np.log(counts / counts.sum())[unseen].mean())

    return student(ours), student(theirs)


@trial(
    "selector rank.top",
    "selector sampling.random",
    after="IFD",
    control="as many random rows",
    measure="loss on right answers, nats a word",
    less=True,
)
def ifd(seed: int) -> FIGURES:
    """The answers that follow least from their instruction, of those that do follow (IFD at most 1), teach most."""
    rng = ids.generator(seed, "ifd")
    topics, words, rows = 20, 60, 1500
    truth = rng.dirichlet(np.full(words, 0.2), topics)

    def answered(topic: np.ndarray) -> np.ndarray:
        return np.stack([rng.choice(words, 12, p=truth[t]) for t in topic])

    def learnt(topic: np.ndarray, said: np.ndarray) -> np.ndarray:
        counts = np.full((topics, words), 0.2)
        np.add.at(counts, (np.repeat(topic, said.shape[1]), said.ravel()), 1)
        return np.log(counts / counts.sum(1, keepdims=True))

    topic = rng.integers(topics, size=rows)
    # A fifth of the answers stands beside another instruction.
    said = answered(np.where(rng.random(rows) < 0.2, rng.integers(topics, size=rows), topic))
    seen = rng.integers(topics, size=400)
    small = learnt(seen, answered(seen))
    conditional = -np.take_along_axis(small[topic], said, 1).mean(1)
    direct = -np.log(np.exp(small).mean(0))[said].mean(1)
    ratio = conditional / direct
    given = candidates(rows, ifd=np.where(ratio <= 1, ratio, np.nan))
    ours = chosen(built("selector", "rank.top", by="ifd"), given, 300, seed)
    theirs = chosen(built("selector", "sampling.random"), given, 300, seed)
    asked = rng.integers(topics, size=500)
    unseen = answered(asked)

    def student(some: np.ndarray) -> float:
        return float(-np.take_along_axis(learnt(topic[some], said[some])[asked], unseen, 1).mean())

    return student(ours), student(theirs)


@trial(
    "selector rank.hard",
    "selector sampling.random",
    after="HARD",
    control="as many random swaps",
    measure="swapped pairs answered otherwise than the pair, share",
    less=True,
)
def hard(seed: int) -> FIGURES:
    """Swapped operands on which teacher and student disagree most, in four rounds, mend an asymmetry soonest."""
    rng = ids.generator(seed, "hard")
    directions, phases = rng.normal(size=(2, 60)) * 2.5, rng.uniform(0, 2 * np.pi, 60)
    weights = rng.normal(size=3)

    def seen(pairs: np.ndarray) -> np.ndarray:
        return np.cos(pairs @ directions + phases)

    def teacher(pairs: np.ndarray) -> np.ndarray:
        total, product = pairs.sum(1), pairs.prod(1)
        return (weights[0] * np.sin(2 * total) + weights[1] * np.cos(3 * product) + weights[2] * product > 0).astype(
            int
        )

    def ordered(rows: int) -> np.ndarray:
        return np.sort(rng.uniform(-1.5, 1.5, (rows, 2)), axis=1)

    taught, pool, unseen = ordered(300), ordered(800)[:, ::-1], ordered(1500)

    def student(swaps: np.ndarray) -> np.ndarray:
        rows = np.concatenate([taught, pool[swaps]])
        return regression(seen(rows), np.eye(2)[teacher(rows)])

    def asymmetry(swaps: np.ndarray) -> float:
        there, back = (says(student(swaps), seen(pairs)).argmax(1) for pairs in (unseen, unseen[:, ::-1]))
        return float((there != back).mean())

    select = built("selector", "rank.hard", disagreement="disagreement", least=0.1, most=4.0)
    ours = np.zeros(0, int)
    for _ in range(4):
        sure = says(student(ours), seen(pool))[np.arange(len(pool)), teacher(pool)]
        sure[ours] = np.nan
        ours = np.append(ours, chosen(select, candidates(len(pool), disagreement=-np.log(sure)), 15, seed))
    theirs = chosen(built("selector", "sampling.random"), candidates(len(pool)), len(ours), seed)
    return asymmetry(ours), asymmetry(theirs)


@trial(
    "selector target.less",
    "selector sampling.random",
    after="LESS",
    control="as many random rows",
    measure="accuracy of the student on the target's task",
)
def less(seed: int) -> FIGURES:
    """Rows whose gradients point where those of a few of the target's do teach the target's task more."""
    rng = ids.generator(seed, "less")
    tasks, width, rows, known = 5, 12, 1500, 20
    truths = rng.normal(size=(tasks, width, 2))
    task = np.r_[np.zeros(known, int), rng.integers(tasks, size=rows)]
    # Each task has inputs of its own kind, which overlap.
    centres = 0.5 * rng.normal(size=(tasks, width))
    points = centres[task] + rng.normal(size=(len(task), width))
    labels = np.einsum("nd,ndc->nc", points, truths[task]).argmax(1)
    start = regression(points[:known], np.eye(2)[labels[:known]])
    # The gradient of a row's loss by the weights of the student that has seen the target's few.
    slope = says(start, points) - np.eye(2)[labels]
    vector = np.einsum("nd,nc->ndc", points, slope).reshape(len(points), -1)
    given = candidates(len(points), vector=vector, target=(np.arange(len(points)) < known).astype(float))
    ours = chosen(built("selector", "target.less", vector="vector", target="target"), given, 75, seed)
    theirs = known + rng.permutation(rows)[: len(ours)]
    unseen = centres[0] + rng.normal(size=(2000, width))
    right = (unseen @ truths[0]).argmax(1)

    def student(some: np.ndarray) -> float:
        learnt = regression(points[some], np.eye(2)[labels[some]])
        return float((says(learnt, unseen).argmax(1) == right).mean())

    return student(ours), student(theirs)
