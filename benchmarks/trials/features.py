"""Trials of what a student learns beside one distribution, and of what is made of models and of signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.builders.tokens import carried
from pipeline.kinds.objective import OUTCOMES, DenseTeacher, View
from pipeline.kinds.transform import Signals
from pipeline.model import heads
from pipeline.tables import ids
from pipeline.training.reduce import reduce
from pipeline.transforms.calibration import calibration_error
from pipeline.transforms.subclasses import dense

WIDTH, STATE = 16, 24
UNSEEN = 4000
ACCURACY = "percent right of 4,000 unseen"


@dataclass(frozen=True)
class World:
    """Classes of several clouds each, whose places nobody is told; `kinds` clouds a class."""

    centres: np.ndarray
    classes: int
    spread: float

    @classmethod
    def drawn(cls, rng: np.random.Generator, classes: int, kinds: int, spread: float) -> World:
        return cls(rng.normal(size=(classes * kinds, WIDTH)), classes, spread)

    def points(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Points and the cloud that each is of; a cloud's class is its number modulo the classes."""
        cloud = rng.integers(0, len(self.centres), count)
        noise = self.spread * rng.normal(size=(count, WIDTH))
        return (self.centres[cloud] + noise).astype(np.float32), cloud


class Net(nn.Module):
    """Two layers; taps `middle` and `last`, and heads."""

    def __init__(self, seed: int, hidden: int, width: int, outcomes: Mapping[str, int]) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(WIDTH, hidden), nn.Linear(hidden, width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, count) for name, count in outcomes.items()})

    def forward(self, points: torch.Tensor) -> dict[str, torch.Tensor]:
        middle = self.first(points).relu()
        return {"middle": middle, "last": self.second(middle).relu()}


@dataclass(frozen=True)
class Taught:
    """What a student is shown: points, classes (-1 is unknown), a teacher's logits and states."""

    points: np.ndarray
    target_N: np.ndarray
    logits_NV: np.ndarray
    taps: Mapping[str, np.ndarray]

    def signals(self) -> Signals:
        """The same as a table of signals, an example each."""
        log_p = torch.from_numpy(self.logits_NV).double().log_softmax(1).numpy()
        count, order = len(log_p), np.argsort(-log_p, axis=1, kind="stable")
        return Signals(
            example_B=np.array([f"{i:06d}" for i in range(count)]),
            weight_B=np.ones(count, np.float32),
            row_N=np.arange(count),
            target_N=self.target_N,
            ids_NK=order.astype(np.int32),
            logprobs_NK=np.take_along_axis(log_p, order, 1).astype(np.float32),
            tail_N=np.zeros(count, np.float32),
            target_logprob_N=log_p[np.arange(count), np.maximum(self.target_N, 0)].astype(np.float32),
            features=self.taps,
        )

    def by(self, signals: Signals) -> Taught:
        """The same with the distributions and taps of a table."""
        return replace(self, logits_NV=np.log(np.maximum(dense_p(signals), 1e-9)), taps=signals.features)


def dense_p(signals: Signals) -> np.ndarray:
    return np.exp(dense(signals)).astype(np.float32)


# Weight, objective, its arguments, the head that it judges.
Term = tuple[float, str, dict[str, Any], str]
LABELS: Term = (0.5, "supervised.cross_entropy", {}, "main")
SOFT: Term = (0.5, "divergence.forward", {}, "main")


def learnt(seed: int, net: Net, taught: Taught, terms: Sequence[Term], steps: int = 120) -> Net:
    """A network after so many steps of Adam on all rows at once; an objective of targets sees those that are known."""
    points, target_N = torch.from_numpy(taught.points), torch.from_numpy(taught.target_N)
    logits_NV = torch.from_numpy(taught.logits_NV)
    taps = {name: torch.from_numpy(np.asarray(tap)) for name, tap in taught.taps.items()}
    judges = [(weight, built("objective", name, **given), name, head) for weight, name, given, head in terms]
    torch.manual_seed(seed)
    with torch.no_grad():
        widths = {name: states.shape[1] for name, states in net(points[:1]).items()}
    own = [
        judge.modules({**widths, OUTCOMES: net.heads[head].out_features}, {n: t.shape[1] for n, t in taps.items()})
        if hasattr(judge, "modules")
        else None
        for _, judge, _, head in judges
    ]
    learns = [*net.parameters(), *(p for module in own if module is not None for p in module.parameters())]
    optimizer = torch.optim.Adam(learns, 2e-2)
    for _ in range(steps):
        features, total = net(points), torch.zeros(())
        for (weight, judge, name, head), module in zip(judges, own, strict=True):
            some = target_N >= 0 if name == "supervised.cross_entropy" else torch.ones_like(target_N, dtype=torch.bool)
            view = View(
                student_NV=net.heads[head](features["last"])[some],
                target_N=target_N[some],
                teacher=DenseTeacher(logits_NV[some]),
                features={n: states[some] for n, states in features.items()},
                teacher_features={n: states[some] for n, states in taps.items()},
                example_N=torch.arange(int(some.sum())),
                weight_N=torch.ones(int(some.sum())),
                own=module,  # type: ignore[arg-type]
            )
            total = total + weight * reduce([judge(view)], int(some.sum()))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return net


def said(net: Net, points: np.ndarray, shares: Mapping[str, heads.Share] | None = None) -> np.ndarray:
    """Logits of a network's answers."""
    with torch.no_grad():
        return heads.answer(net(torch.from_numpy(points))["last"], dict(net.heads), shares or {}).numpy()


def teacher(seed: int, world: World, rng: np.random.Generator, rows: int) -> Net:
    """A wide network that learnt from labelled rows."""
    points, cloud = world.points(rng, rows)
    given = Taught(points, cloud % world.classes, np.zeros((rows, world.classes), np.float32), {})
    return learnt(seed, Net(seed, 64, STATE, {"main": world.classes}), given, [(1.0, *LABELS[1:])], 80)


def lesson(net: Net, points: np.ndarray, target_N: np.ndarray) -> Taught:
    """What a teacher says of points."""
    with torch.no_grad():
        states = net(torch.from_numpy(points))["last"]
        return Taught(points, target_N, net.heads["main"](states).numpy(), {"last": states.numpy()})


def right(logits_NV: np.ndarray, target_N: np.ndarray) -> float:
    return 100 * float((logits_NV.argmax(1) == target_N).mean())


@dataclass(frozen=True)
class Case:
    """A world with its teacher, rows for a student, and unseen ones."""

    seed: int
    world: World
    taught: Taught
    points: np.ndarray
    target_N: np.ndarray

    @classmethod
    def drawn(
        cls,
        seed: int,
        name: str,
        *,
        classes: int,
        kinds: int,
        spread: float,
        rows: int,
        labels: int,
        lessons: int = 1000,
    ) -> Case:
        rng = ids.generator(seed, name)
        world = World.drawn(rng, classes, kinds, spread)
        net = teacher(seed, world, rng, lessons)
        points, cloud = world.points(rng, rows)
        unseen, other = world.points(rng, UNSEEN)
        target_N = np.where(np.arange(rows) < labels, cloud % classes, -1)
        return cls(seed, world, lesson(net, points, target_N), unseen, other % classes)

    def student(self, terms: Sequence[Term], taught: Taught | None = None, **outcomes: int) -> Net:
        net = Net(self.seed + 1, 12, 8, {"main": self.world.classes, **outcomes})
        return learnt(self.seed, net, taught or self.taught, terms)

    def score(self, net: Net, shares: Mapping[str, heads.Share] | None = None) -> float:
        return right(said(net, self.points, shares), self.target_N)


@trial(
    "builder heads.add", "builder heads.dual", after="DHO",
    control="one head, the same two losses", measure=ACCURACY,
)  # fmt: skip
def two_heads(seed: int) -> FIGURES:
    """With few labels and a poor teacher, a head for each, whose answers are mixed, beats one head for both."""
    case = Case.drawn(seed, "dho", classes=6, kinds=1, spread=1.2, rows=600, labels=40, lessons=60)
    both = case.student([LABELS, (*SOFT[:3], "kd")], kd=6)
    return case.score(both, {"kd": heads.Share(share=0.5)}), case.score(case.student([LABELS, SOFT]))


@trial(
    "transform subclasses.lelp", "objective targets.distribution", after="LELP",
    control="the teacher's distribution over the classes", measure=ACCURACY,
)  # fmt: skip
def subclasses(seed: int) -> FIGURES:
    """Kinds of two classes, told from the teacher's states, teach a small student more than the classes alone."""
    case = Case.drawn(seed, "lelp", classes=2, kinds=5, spread=0.8, rows=150, labels=0)
    given = case.taught.signals()
    told = case.taught.by(built("transform", "subclasses.lelp", kinds=5)(given, given, seed))
    made = case.student([(1.0, "targets.distribution", {"teacher_tap": "subclasses"}, "kinds")], told, kinds=10)
    return case.score(made, {"kinds": heads.Share(share=1.0)}), case.score(case.student([(1.0, *SOFT[1:])]))


def beside(seed: int, term: Term, *, use: str | None = None) -> FIGURES:
    """A term more beside labels and teacher, and without it; `use` is a transform that it needs."""
    case = Case.drawn(seed, "beside", classes=8, kinds=2, spread=0.9, rows=300, labels=300)
    given = case.taught.signals()
    told = case.taught if use is None else case.taught.by(built("transform", use)(given, given, seed))
    return case.score(case.student([LABELS, SOFT, term], told)), case.score(case.student([LABELS, SOFT]))


PLAIN = "labels and distribution, no further term"


@trial("objective feature.nd", "transform classes.mean", after="ND", control=PLAIN, measure=ACCURACY)
def norm_and_direction(seed: int) -> FIGURES:
    """A state that turns to the teacher's mean of its class makes a better student."""
    return beside(seed, (0.25, "feature.nd", {}, "main"), use="classes.mean")


@trial("objective exits.ofa", after="OFA-KD", control=PLAIN, measure=ACCURACY)
def exit_heads(seed: int) -> FIGURES:
    """An exit from the middle that learns the enhanced distribution makes a better student."""
    return beside(seed, (0.5, "exits.ofa", {"tap": "middle", "gamma": 1.5}, "main"))


@trial("objective relation.gram", after="similarity-preserving KD", control=PLAIN, measure=ACCURACY)
def similarities(seed: int) -> FIGURES:
    """A student whose places lie to each other as the teacher's is a better one."""
    return beside(seed, (10.0, "relation.gram", {}, "main"))


@trial(
    "transform calibration.trustworthy", after="FIRST", control="the teacher as it is",
    measure="the student's calibration error, percent", less=True,
)  # fmt: skip
def trustworthy(seed: int) -> FIGURES:
    """A student of a teacher that is as sure as it is right is better calibrated."""
    case = Case.drawn(seed, "first", classes=6, kinds=2, spread=1.0, rows=600, labels=200, lessons=200)
    given = case.taught.signals()
    told = case.taught.by(built("transform", "calibration.trustworthy")(given, given, seed))
    errors = []
    for each in (told, case.taught):
        logits = said(case.student([(1.0, *SOFT[1:])], each), case.points)
        signals = Taught(case.points, case.target_N, logits, {}).signals()
        errors.append(100 * calibration_error(np.exp(signals.logprobs_NK[:, 0].astype(np.float64)), signals))
    return errors[0], errors[1]


def two_teachers(seed: int, use: str, labels: int) -> FIGURES:
    """A student of a merge of two teachers, each of which learnt about half of the classes, and one of their mean."""
    case = Case.drawn(seed, "merge", classes=8, kinds=1, spread=1.0, rows=600, labels=labels)
    rng, tables = ids.generator(seed, use), []
    for half in (0, 1):
        points, cloud = case.world.points(rng, 1000)
        known = (cloud % 8 // 4 == half) | (rng.random(1000) < 0.02)
        own = Taught(points[known], (cloud % 8)[known], np.zeros((int(known.sum()), 8), np.float32), {})
        net = learnt(seed, Net(seed + half, 64, STATE, {"main": 8}), own, [(1.0, *LABELS[1:])], 80)
        tables.append(lesson(net, case.taught.points, case.taught.target_N).signals())
    figures = []
    for name in (use, "merge.mean"):
        made = built("transform", name)(*tables, seed)
        weight = torch.from_numpy(made.weight_B / made.weight_B.mean())
        points, p_NV = torch.from_numpy(case.taught.points), torch.from_numpy(dense_p(made))
        net = Net(seed + 1, 12, 8, {"main": 8})
        optimizer = torch.optim.Adam(net.parameters(), 2e-2)
        for _ in range(120):
            loss = -(weight * (p_NV * net.heads["main"](net(points)["last"]).log_softmax(1)).sum(1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        figures.append(case.score(net))
    return figures[0], figures[1]


@trial("transform merge.confidence", after="CA-MKD", control="the mean of both", measure=ACCURACY)
def confident_teacher(seed: int) -> FIGURES:
    """Of two teachers that know half of the classes each, the one that holds the label teaches more."""
    return two_teachers(seed, "merge.confidence", 600)


@trial(
    "builder tokens.omp", after="OMP transplantation", control="the mean of the shared tokens",
    measure="squared error of new embeddings, share of their own", less=True,
)  # fmt: skip
def transplanted(seed: int) -> FIGURES:
    """Embeddings of tokens that the base never saw are near those that it would have, if both models see one space."""
    rng = ids.generator(seed, "omp")
    # Tokens are sparse combinations of meanings, which each model sees by a map of its own, with noise.
    meant = rng.normal(size=(600, 48)) * (rng.random((600, 48)) < 0.15)
    donor, base = (meant @ rng.normal(size=(48, 64)) / 7 + 0.05 * rng.normal(size=(600, 64)) for _ in range(2))
    shared = np.arange(400)
    made = carried(donor.astype(np.float32), base[:400].astype(np.float32), shared, shared, 64, True)[400:]
    own = float((base[400:] ** 2).sum())
    return float(((made - base[400:]) ** 2).sum()) / own, float(((base[:400].mean(0) - base[400:]) ** 2).sum()) / own
