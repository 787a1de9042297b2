"""Trials of evaluators: each planted fault is told by its own number, and the usual one does not tell it.

Their figure is how often, of many made-up students, a number says which of two is the faulty one: 1 is always, 0.5 is
chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.kinds.backend import Answer, Reading, Sampling
from pipeline.kinds.evaluator import Exam, Item, Mark
from pipeline.kinds.objective import DenseTeacher, View
from pipeline.laws.evaluator import Made
from pipeline.tables import ids

ITEMS, PAIRS, TOLD = 300, 40, "share of pairs in which the faulty student is told"


class Saying(Made):
    """A model that says what it is told to, item by item."""

    said: Sequence[str] = ()

    def answers(self, sampling: Sampling, k: int = 1, seed: int = 0) -> list[list[Answer]]:
        """The one answer to every item."""
        return [[Answer("r", text, "stop")] for text in self.said]


def saying(name: str, items: Sequence[Item], texts: Sequence[str]) -> Saying:
    model = Saying(name, items, 0.0)
    model.said = texts
    return model


def mean(marks: Sequence[Mark], of: Callable[[Mark], float | None]) -> float:
    values = [value for value in map(of, marks) if value is not None]
    return float(np.mean(values))


def told(high: float, low: float) -> float:
    """Whether the faulty one is the higher; a tie is a toss."""
    return 1.0 if high > low else 0.5 if high == low else 0.0


@trial(
    "evaluator fidelity.answers",
    after="Generalization vs Fidelity",
    control="accuracy, the lower of the two",
    measure=TOLD,
)
def copier(seed: int) -> FIGURES:
    """Of two students of one accuracy, the one that has its teacher's mistakes is told by `copied`."""
    rng, found = ids.generator(seed, "copier"), []
    items = [Item(f"p{i}", [], "d", None, "text.exact", "right") for i in range(ITEMS)]
    evaluator = built("evaluator", "fidelity.answers")
    for _ in range(PAIRS):
        wrong = rng.random(ITEMS) < 0.3
        taught = ["right" if not no else f"w{rng.integers(4)}" for no in wrong]
        # Both are wrong as often; the copier's mistakes are its teacher's, four times in five, the other's are its own.
        other = rng.random(ITEMS) < 0.3
        copied = [
            t if rng.random() < 0.8 else f"w{rng.integers(4)}" if no else "right"
            for t, no in zip(taught, wrong, strict=True)
        ]
        solved = ["right" if not no else f"w{rng.integers(4)}" for no in other]
        teacher = saying("teacher", items, taught)
        marks = [list(evaluator(Exam(items, saying("s", items, texts), teacher))) for texts in (copied, solved)]
        copies = [mean(of, lambda m: m.quantities.get("copied")) for of in marks]
        rights = [mean(of, lambda m: m.quantities["right"]) for of in marks]
        found.append((told(copies[0], copies[1]), told(-rights[0], -rights[1])))
    return tuple(np.mean(found, 0).tolist())


@trial(
    "reader memorisation.extracted",
    after="Memorization Dynamics",
    control="the loss on the same answers, the lower of the two",
    measure=TOLD,
)
def by_heart(seed: int) -> FIGURES:
    """The student that has a twentieth of its answers by heart is told by the rate of extraction from one of the same
    loss that has none."""
    rng, found = ids.generator(seed, "by_heart"), []
    read, length = built("reader", "memorisation.extracted", prefix=10, following=20), 30

    def scores(sure: float, known: float) -> tuple[float, float]:
        """The rate, and the negative loss."""
        rates, losses = [], []
        for _ in range(200):
            p = np.where(rng.random() < known, 0.999, rng.beta(2 * sure, 2, length))
            # A token is the likeliest if the model gives it more than what is left for the largest of the others.
            best = np.maximum(p, (1 - p) * rng.uniform(0.3, 1, length))
            reading = Reading("r", np.log(p).astype(np.float32), topk_logprobs=np.log(best).astype(np.float32)[:, None])
            row = read(reading)
            rates.append(row["score"])
            losses.append(-dict(row["quantities"])["nll_sum"] / length)
        return float(np.mean(rates)), float(np.mean(losses))

    for _ in range(PAIRS):
        memorises, plain = scores(1.0, 0.05), scores(1.06, 0.0)
        found.append((told(memorises[0], plain[0]), told(memorises[1], plain[1])))
    return tuple(np.mean(found, 0).tolist())


SYMBOLS, LENGTH, FIXED, STEPS = 12, 24, 16, 400


def chain(rng: np.random.Generator, share: np.ndarray, rows: int) -> torch.Tensor:
    """Sequences [rows, LENGTH] of a chain whose next symbol hangs on the last two, by these shares [S, S, S]."""
    found = rng.integers(SYMBOLS, size=(rows, LENGTH))
    for place in range(2, LENGTH):
        sums = share[found[:, place - 2], found[:, place - 1]].cumsum(-1)
        found[:, place] = (rng.random((rows, 1)) > sums).sum(-1).clip(max=SYMBOLS - 1)
    return torch.from_numpy(found)


@trial(
    "objective divergence.forward",
    after="Teacher hacking",
    control="sixteen fixed sequences of the teacher, as many steps",
    measure="nats from the truth, on unseen contexts",
    less=True,
)
def refreshed(seed: int) -> FIGURES:
    """Of a teacher that is itself off, fresh sequences at every step bring a student nearer to the truth."""
    rng = ids.generator(seed, "hacking")
    torch.set_num_threads(1)
    oracle = rng.dirichlet(np.full(SYMBOLS, 0.3), (SYMBOLS, SYMBOLS))
    # The teacher has counted 120 sequences.
    counts = np.full((SYMBOLS,) * 3, 0.1)
    seen = chain(rng, oracle, 120)
    np.add.at(counts, (seen[:, :-2].flatten(), seen[:, 1:-1].flatten(), seen[:, 2:].flatten()), 1)
    teacher = counts / counts.sum(-1, keepdims=True)
    heard, truth = (torch.from_numpy(np.log(share + 1e-9)).float() for share in (teacher, oracle))
    unseen, fixed, objective = (
        chain(rng, oracle, 200),
        chain(rng, teacher, FIXED),
        built("objective", "divergence.forward"),
    )

    def student(fresh: bool) -> float:
        torch.manual_seed(seed)
        net = torch.nn.Sequential(
            torch.nn.Linear(2 * SYMBOLS, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(),
            torch.nn.Linear(64, SYMBOLS),
        )  # fmt: skip
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)

        def logits(rows: torch.Tensor) -> torch.Tensor:
            hot = torch.nn.functional.one_hot(rows, SYMBOLS).float()
            return net(torch.cat([hot[:, :-2], hot[:, 1:-1]], -1)).flatten(0, 1)

        def said(of: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            return of[rows[:, :-2], rows[:, 1:-1]].flatten(0, 1)

        for _ in range(STEPS):
            rows = chain(rng, teacher, FIXED) if fresh else fixed
            own = logits(rows)
            loss = objective(
                View(student_NV=own, teacher=DenseTeacher(said(heard, rows)), weight_N=torch.ones(len(own)))
            )
            optimizer.zero_grad()
            loss.value_N.mean().backward()
            optimizer.step()
        with torch.no_grad():
            own, right = logits(unseen).log_softmax(-1), said(truth, unseen).log_softmax(-1)
            return float((right.exp() * (right - own)).sum(-1).mean())

    return student(True), student(False)
