"""Small worlds whose truth is known, and students that learn in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.kinds.selector import Budget, Candidates, Selector


def candidates(count: int, **columns: np.ndarray) -> Candidates:
    """Candidates of a token each, with these columns and `false`; prompts and domains may be given, too."""
    names = np.array([f"{i:06d}" for i in range(count)], object)
    own = {"prompts": names, "domains": np.full(count, "all", object)}
    own = {name: columns.pop(name, column) for name, column in own.items()}
    return Candidates(names, tokens=np.ones(count, int), columns={"false": np.zeros(count), **columns}, **own)


def chosen(select: Selector, given: Candidates, rows: int | None, seed: int) -> np.ndarray:
    """The places of what a selector keeps."""
    return np.flatnonzero(select(given, Budget(rows=rows), seed).kept)


def answers(prompts: list[str], said: list[str | None], **columns: object) -> pa.Table:
    """Answers of one entry, as a scorer is given them."""
    nothing, count = pa.nulls(len(said), pa.string()), len(said)
    return pa.table({
        "response_id": [f"{i:06d}" for i in range(count)],
        "prompt_id": prompts,
        "entry": ["teacher"] * count,
        "answer": pa.array(said, pa.string()),
        "content": pa.array(said, pa.string()),
        "verifier": nothing,
        "reference": nothing,
        "error": nothing,
    } | columns)  # fmt: skip


@dataclass(frozen=True)
class Classes:
    """Classes that are clouds around their centres, [C, D]."""

    centres: np.ndarray
    spread: float

    @classmethod
    def drawn(cls, rng: np.random.Generator, classes: int, width: int, spread: float) -> Classes:
        return cls(rng.normal(size=(classes, width)), spread)

    def points(self, rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
        """A point of each label, [N, D]."""
        return self.centres[labels] + self.spread * rng.normal(size=(len(labels), self.centres.shape[1]))


def softmax(logits: np.ndarray) -> np.ndarray:
    grown = np.exp(logits - logits.max(1, keepdims=True))
    return grown / grown.sum(1, keepdims=True)


def regression(points: np.ndarray, targets: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """A student: softmax regression of targets [N, C] on points [N, D] and a constant, to weights [D + 1, C]."""
    from scipy.optimize import minimize

    given = with_constant(points)
    weight = np.ones(len(points)) if weight is None else weight
    shape = (given.shape[1], targets.shape[1])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        share = softmax(given @ weights)
        value = -(weight[:, None] * targets * np.log(share + 1e-12)).sum() + 0.05 * (weights**2).sum()
        slope = given.T @ (weight[:, None] * (share * targets.sum(1, keepdims=True) - targets)) + 0.1 * weights
        return value, slope.ravel()

    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return found.x.reshape(shape)


def says(weights: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A student's distribution over the classes, [N, C]."""
    return softmax(with_constant(points) @ weights)


def with_constant(points: np.ndarray) -> np.ndarray:
    return np.column_stack([points, np.ones(len(points))])


def neighbour(points: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """A student that says what it learnt of the nearest point."""
    squared = (points**2).sum(1) - 2 * asked @ points.T
    return labels[squared.argmin(1)]


def chain(rng: np.random.Generator, contexts: int, symbols: int, evenness: float) -> np.ndarray:
    """What follows every context, [contexts, symbols]; the less even, the surer."""
    return rng.dirichlet(np.full(symbols, evenness), contexts)


def walks(rng: np.random.Generator, follows: np.ndarray, rows: int, length: int) -> np.ndarray:
    """Texts [rows, length] of a chain whose context is the last symbol, or the last two."""
    contexts, symbols = follows.shape
    texts = rng.integers(symbols, size=(rows, length))
    steps = follows.cumsum(1)
    for at in range(2, length):
        context = texts[:, at - 1] if contexts == symbols else texts[:, at - 2] * symbols + texts[:, at - 1]
        texts[:, at] = np.minimum((rng.random(rows)[:, None] > steps[context]).sum(1), symbols - 1)
    return texts


@dataclass(frozen=True)
class Ngrams:
    """A language model of counts: what followed the last symbol (order 2) or the last two (order 3)."""

    logs: np.ndarray
    order: int

    @classmethod
    def learnt(cls, texts: np.ndarray, symbols: int, order: int, more: float = 0.1) -> Ngrams:
        """From texts [rows, length]; `more` is added to every count."""
        counts = np.full((symbols ** (order - 1), symbols), more)
        np.add.at(counts, cls._places(texts, symbols, order), 1.0)
        return cls(np.log(counts / counts.sum(1, keepdims=True)), order)

    def nll(self, texts: np.ndarray) -> np.ndarray:
        """The mean negative log-probability of a text's symbols from the third on, [rows]."""
        return -self.logs[self._places(texts, self.logs.shape[1], self.order)].mean(1)

    @staticmethod
    def _places(texts: np.ndarray, symbols: int, order: int) -> tuple[np.ndarray, np.ndarray]:
        context = texts[:, 1:-1] if order == 2 else texts[:, :-2] * symbols + texts[:, 1:-1]
        return context, texts[:, 2:]
