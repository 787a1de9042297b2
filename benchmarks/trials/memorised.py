"""Trials of what a student will have by heart: short motifs, over and over, among texts that nobody can foretell."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from benchmarks.trials.simulated import Ngrams, candidates, chain, chosen, walks
from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.kinds.backend import Reading
from pipeline.kinds.selector import Budget
from pipeline.tables import ids

SYMBOLS, LENGTH, SEEN = 12, 26, 4
ROWS, PILOT, KEPT, STEPS = 1500, 300, 600, 500


def texts(rng: np.random.Generator, follows: np.ndarray, motifs: np.ndarray, rows: int) -> np.ndarray:
    """[rows, LENGTH]: a fifth are a motif again and again, every second of these with two symbols that are others."""
    found = walks(rng, follows, rows, LENGTH)
    for row in range(rows // 5):
        found[row] = np.resize(motifs[rng.integers(len(motifs))], LENGTH)
        if row % 2:
            found[row, rng.choice(np.arange(10, LENGTH), 2, replace=False)] = rng.integers(SYMBOLS, size=2)
    return found[rng.permutation(rows)]


def heart(seed: int, rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Which of the texts a student of these rows has by heart, as the reader says, [asked]."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(SEEN * SYMBOLS, 96), torch.nn.ReLU(), torch.nn.Linear(96, SYMBOLS))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    rng, read = ids.generator(seed, "steps"), built("reader", "memorisation.extracted", prefix=4, following=18)

    def logits(of: np.ndarray) -> torch.Tensor:
        hot = torch.nn.functional.one_hot(torch.from_numpy(of), SYMBOLS).float()
        return net(torch.cat([hot[:, i : LENGTH - SEEN + i] for i in range(SEEN)], -1))

    for _ in range(STEPS):
        batch = rows[rng.choice(len(rows), 64)]
        loss = torch.nn.functional.cross_entropy(
            logits(batch).flatten(0, 1), torch.from_numpy(batch[:, SEEN:]).flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logs = logits(asked).log_softmax(-1)
    said = logs.gather(-1, torch.from_numpy(asked[:, SEEN:, None]))[..., 0].numpy()
    best = logs.max(-1, keepdim=True).values.numpy()
    return np.array([read(Reading("r", own, topk_logprobs=top))["score"] for own, top in zip(said, best, strict=True)])


@dataclass(frozen=True)
class World:
    """Rows to choose from, with what can be read of them before a student is trained."""

    seed: int
    rows: np.ndarray
    zlib: np.ndarray
    teacher: np.ndarray
    base: np.ndarray

    @classmethod
    def drawn(cls, seed: int) -> World:
        torch.set_num_threads(1)
        rng = ids.generator(seed, "memorised")
        follows, motifs = chain(rng, SYMBOLS**2, SYMBOLS, 0.3), rng.integers(SYMBOLS, size=(30, 3))
        rows, others = (texts(rng, follows, motifs, count) for count in (ROWS, 2000))
        size = np.array([len(zlib.compress(row.astype(np.uint8).tobytes())) for row in rows], np.float64)
        models = Ngrams.learnt(others, SYMBOLS, 3), Ngrams.learnt(others[:200], SYMBOLS, 2)
        return cls(seed, rows, size, *(model.nll(rows) for model in models))

    @cached_property
    def known(self) -> np.ndarray:
        """Of the first rows, whether a student of them has them by heart; of the others nothing."""
        said = np.full(ROWS, np.nan)
        said[:PILOT] = heart(self.seed, self.rows[:PILOT], self.rows[:PILOT])
        return said

    def kept(self, budget: Budget, **by: str) -> np.ndarray:
        """The places of the rows that are not likely to be remembered."""
        columns = {name: getattr(self, name) for name in ("zlib", "teacher", "base", "known")}
        arguments = {name: name for name in columns} | by
        select = built("selector", "memorisation.unlikely", **arguments)
        return chosen(select, candidates(ROWS, **columns), budget.rows, self.seed)


@trial(
    "selector memorisation.unlikely",
    "scorer compression.zlib",
    "reader memorisation.extracted",
    after="Memorization Dynamics",
    control="as many random rows",
    measure="share of its rows that the student has by heart",
    less=True,
)
def unlikely(seed: int) -> FIGURES:
    """Without the rows that are likely to be remembered, as many others leave a student with fewer by heart."""
    world = World.drawn(seed)
    random = ids.generator(seed, "control").choice(ROWS, KEPT, replace=False)
    students = (heart(seed, world.rows[of], world.rows[of]) for of in (world.kept(Budget(rows=KEPT)), random))
    return tuple(float(found.mean()) for found in students)


@trial(
    "selector memorisation.unlikely",
    "scorer compression.zlib",
    after="Memorization Dynamics",
    control="compressed bytes alone",
    measure="balanced accuracy of what is foretold",
)
def foretold(seed: int) -> FIGURES:
    """Two perplexities beside the compressed bytes foretell better which rows a student will have by heart."""
    world = World.drawn(seed)
    remembered = heart(seed, world.rows, world.rows) > 0

    def right(kept: np.ndarray) -> float:
        dropped = ~np.isin(np.arange(ROWS), kept)
        # Those that the first student told of itself are not foretold.
        return float(np.mean([(dropped == remembered)[PILOT:][remembered[PILOT:] == told].mean() for told in (0, 1)]))

    everything = Budget()
    return right(world.kept(everything)), right(world.kept(everything, teacher="zlib", base="zlib"))
