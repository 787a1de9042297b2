"""Trials of what a teacher is asked to write, and in which order it is learnt."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from benchmarks.trials.simulated import Classes, regression, says, softmax
from benchmarks.trials.trial import FIGURES, built, trial
from benchmarks.trials.writers import Writer, answered, detours, last, rows_of_bits, steps
from pipeline.kinds.backend import Reading
from pipeline.kinds.operator import Child, Parent
from pipeline.tables import ids
from pipeline.training.order import Order
from pipeline.training.recipe import Pacing, Recipe

CLASSES, ROUNDS, CALLS = 30, 6, 60
CHARACTERS = 300_000


@trial(
    "operator variants.report",
    after="PGKD",
    control="as many tasks of every class",
    measure="macro-F1 of the student",
)
def report(seed: int) -> FIGURES:
    """Tasks of the classes that a student's report shows to be weak teach it more than tasks of all classes."""
    world = Classes.drawn(ids.generator(seed, "pgkd", "world"), CLASSES, 8, 1.1)
    return _rounds(world, seed, guided=True), _rounds(world, seed, guided=False)


@trial(
    "operator variants.report",
    after="PGKD",
    control="tasks as they come, by the prior",
    measure="macro-F1 of the student",
)
def report_over_prior(seed: int) -> FIGURES:
    """Tasks of the classes that a student's report shows to be weak teach it more than more of the same."""
    world = Classes.drawn(ids.generator(seed, "pgkd", "world"), CLASSES, 8, 1.1)
    return _rounds(world, seed, guided=True), _rounds(world, seed, guided=None)


def _rounds(world: Classes, seed: int, guided: bool | None) -> float:
    """A student's score after some rounds of tasks that its report, balance, or (None) the prior chose."""
    rng = ids.generator(seed, "pgkd")
    prior = softmax(rng.normal(scale=1.5, size=(1, CLASSES)))[0]
    learnt, held = rng.choice(CLASSES, 300, p=prior), np.arange(600) % CLASSES
    points, shown = world.points(rng, learnt), world.points(rng, held)
    for turn in range(ROUNDS):
        draw = ids.generator(seed, "pgkd", "round", turn)
        more = draw.choice(CLASSES, CALLS, p=prior) if guided is None else np.arange(CALLS) % CLASSES
        if guided:
            said = says(regression(points, np.eye(CLASSES)[learnt]), shown).argmax(1)
            asked = built("operator", "variants.report", student="student", rows=CALLS, count=1)(
                sorted(map(_parent, range(len(held)), held, said), key=lambda parent: parent.id), turn
            )
            more = np.array([
                int(re.findall(r"of the domain (\d+)", str(one.columns["prompt"]))[0])
                for one in asked if isinstance(one, Child)
            ])  # fmt: skip
        points, learnt = np.vstack([points, world.points(draw, more)]), np.concatenate([learnt, more])
    rng = ids.generator(seed, "pgkd", "test")
    truth = np.repeat(np.arange(CLASSES), 40)
    found = says(regression(points, np.eye(CLASSES)[learnt]), world.points(rng, truth)).argmax(1)
    met = np.zeros((CLASSES, CLASSES))
    np.add.at(met, (truth, found), 1)
    return float((2 * met.diagonal() / (met.sum(0) + met.sum(1))).mean())


def _parent(number: int, truth: int, said: int) -> Parent:
    """A held-out task with the student's answer."""
    name, text = f"{number:06d}", [{"role": "user", "content": f"point {number}"}]
    return Parent(
        name, name, text, f"{truth:02d}", None, "text.line", str(truth), None, "student", str(said), str(said),
        bool(truth == said),
    )  # fmt: skip


@trial(
    "operator programs.traced",
    after="VPD",
    control="the first program of each prompt, whatever it prints",
    measure="right among the explanations",
)
def traced(seed: int) -> FIGURES:
    """The trace of a program that prints the right answer is a right explanation."""
    rng = ids.generator(seed, "vpd")
    parents, right = [], {}
    for prompt in range(12):
        a, b, c = (int(n) for n in rng.integers(2, 40, 3))
        for sample in range(3):
            slip = rng.choice(["none", "sum", "order", "name"], p=[0.5, 0.2, 0.2, 0.1])
            # `name` never runs; `order` may print the right number of wrong steps.
            body = {
                "none": f"x = {a} + {b}\nprint(x * {c})", "sum": f"x = {a} + {b} + 1\nprint(x * {c})",
                "order": f"x = {b} * {c}\nprint({a} + x)", "name": f"x = {a} + {b}\nprint(y * {c})",
            }[slip]  # fmt: skip
            name = f"{prompt:03d} {sample}"
            task = [{"role": "user", "content": f"Add {a} and {b}, and take it times {c}."}]
            parents.append(
                Parent(name, f"{prompt:03d}", task, "sums", 1, "numeric.last", str((a + b) * c), None, "teacher",
                       f"```python\n{body}\n```")
            )  # fmt: skip
            right[name] = slip == "none"
    kept = [one.parents[0].id for one in built("operator", "programs.traced", sandbox="none")(parents, seed)
            if isinstance(one, Child)]  # fmt: skip
    first = [parent.id for parent in parents if parent.id.endswith(" 0")]
    return float(np.mean([right[name] for name in kept])), float(np.mean([right[name] for name in first]))


@trial(
    "retriever bm25.best",
    "reader confidence.margin",
    after="NesyCD",
    control="the student alone",
    measure="right about rules that it was not trained on",
)
def knowledge(seed: int) -> FIGURES:
    """A student that looks up what it is not sure of answers what it could not memorise."""
    rng = ids.generator(seed, "nesycd")
    things = ["ring", "map", "lamp", "coin", "book", "seal", "horn", "key"]
    owners = [f"{a}{b}" for a in ("Ar", "Bel", "Cor", "Dan", "Er", "Fal") for b in ("a", "in", "os", "wen", "mir")]
    places = [f"hall {i}" for i in range(12)]
    rules = [(owner, thing) for owner in owners for thing in things]
    truth = rng.integers(len(places), size=len(rules))
    texts = [f"The {thing} of {owner} lies in {places[at]}." for (owner, thing), at in zip(rules, truth, strict=True)]
    asked = [f"In which hall does the {thing} of {owner} lie?" for owner, thing in rules]
    trained = rng.random(len(rules)) < 0.5
    # Of a rule that it was trained on it is sure, as a rule; of another it guesses.
    logits = rng.normal(size=(len(rules), len(places)))
    logits[np.arange(len(rules)), truth] += np.where(trained, 6.0, 0.0)
    share = softmax(logits)
    margin = built("reader", "confidence.margin")
    top = -np.sort(-share, axis=1)[:, :2]
    sure = np.array([
        margin(Reading("", np.zeros(1), topk_ids=np.zeros((1, 2), int), topk_logprobs=np.log(row)[None]))["score"]
        for row in top
    ])  # fmt: skip
    found = built("retriever", "bm25.best")(texts, asked, 1).at[:, 0]
    alone = share.argmax(1)
    helped = np.where(sure <= 68, truth[found], alone)
    new = ~trained
    return float((helped == truth)[new].mean()), float((alone == truth)[new].mean())


@trial(
    "objective supervised.cross_entropy",
    after="rich prompts (Llama 405B)",
    control="what a plain prompt brings out: the last bit alone",
    measure="right, asked plainly",
)
def rich(seed: int) -> FIGURES:
    """A student that is trained on what a rich prompt brings out, and asked plainly, gets more right."""
    rng = ids.generator(seed, "rich")
    learnt, asked = rows_of_bits(rng, 1500, 10), rows_of_bits(rng, 400, 10)

    def student(by: Callable[[str], str]) -> float:
        writer = Writer(seed, 24)
        writer.train(answered(learnt, by), 350, seed)
        return writer.right(asked)

    return student(steps), student(last)


@trial(
    "objective supervised.cross_entropy",
    after="O1 Replication 2",
    control="long thoughts alone, as many characters",
    measure="right",
)
def phases(seed: int) -> FIGURES:
    """To learn the form first, and then from long thoughts that mend their slips, is better than these alone."""
    rng = ids.generator(seed, "phases")
    learnt, asked = rows_of_bits(rng, 1500, 6), rows_of_bits(rng, 400, 6)
    short, long = answered(learnt, steps), answered(learnt, lambda question: detours(rng, question))

    def student(first: int) -> float:
        writer, draw, spent = Writer(seed, 32), ids.generator(seed, "phases", "rows"), 0
        while spent < CHARACTERS:
            pairs = short if spent < first else long
            spent += writer.learn([pairs[i] for i in draw.integers(len(pairs), size=64)])
        return writer.right(asked)

    return student(CHARACTERS // 3), student(0)


@trial(
    "objective supervised.cross_entropy",
    after="document understanding (curriculum)",
    control="any order, as many steps",
    measure="right among the longest tasks",
)
def curriculum(seed: int) -> FIGURES:
    """Short tasks before long ones bring a student further on the long ones."""
    rng = ids.generator(seed, "curriculum")
    lengths = rng.integers(2, 8, size=1600)
    learnt = answered([rows_of_bits(rng, 1, length)[0] for length in lengths], steps)
    asked = rows_of_bits(rng, 400, 7)

    def student(pacing: Pacing | None) -> float:
        writer = Writer(seed, 24)
        recipe = Recipe(epochs=20, batch_rows=64, seed=seed, pacing=pacing)
        order = Order(np.arange(len(learnt)).astype(str), recipe, False, lengths)
        for step in range(order.steps):
            writer.learn([learnt[i] for i in order.at(step)])
        return writer.right(asked)

    return student(Pacing()), student(None)
