"""Scorers that count how many of an entry's answers to a prompt are right: how hard it is for who answered."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveInt

from pipeline.kinds.scorer import Scorer, quantities_of, scorer, siblings
from pipeline.kinds.verifier import metric_of

READS = ("prompt_id", "entry", "verifier", "reference", "answer", "error")


@scorer(reads=READS, score="pass_at(n, c, k)")
def at_k(*, k: PositiveInt = 1) -> Scorer:
    """The chance that one of k answers to the prompt is right, from the n that there are, without bias; null for a
    request that failed, without verifier or reference, and where n < k.

    Every sibling gets the same number. Quantities: n, answers that can be judged; c, those that are right; k. So
    `pass_at(easy.quantities['n'], easy.quantities['c'], 4)` is another k in a rule, and `quantities['c'] between 1 and
    quantities['n'] - 1` keeps what some solve and some do not.

    Paper: Chen et al. 2021 (Codex, arXiv 2107.03374), equation 1.
    Differs: nothing; as a product of factors 1 - k / i, it stays exact where binomials are too large.
    """

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        n, c, judged = counted(rows)
        known = {pair: pass_at_k(*pair, k) for pair in set(zip(n.tolist(), c.tolist(), strict=True))}
        found = [known[pair] for pair in zip(n.tolist(), c.tolist(), strict=True)]
        few = np.array([value is None for value in found], bool)
        return {
            "score": pa.array([value or 0.0 for value in found], pa.float64(), mask=few | ~judged),
            "quantities": quantities_of(n=n, c=c, k=np.full(len(n), k)),
        }

    return score


@scorer(reads=READS, score="1 + floor((levels - 1) * (n - c) / n + 0.5)")
def level(*, levels: Annotated[int, Field(ge=2)] = 6) -> Scorer:
    """How hard the prompt is for who answered it, from 1, where all samples are right, to `levels`, where all are
    wrong; null for a request that failed, and without verifier or reference.

    Quantities: n, answers that can be judged; c, those that are right; levels.

    Paper: Liu et al. 2025 (AlphaMed, arXiv 2505.17952): the number wrong of 5 samples, L1 to L6.
    Differs: for another number of samples, the share that is wrong, to the nearest level; halves to the harder one.
    """

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        n, c, judged = counted(rows)
        found = 1 + np.floor((levels - 1) * (n - c) / np.maximum(n, 1) + 0.5)
        return {
            "score": pa.array(found, mask=~judged),
            "quantities": quantities_of(n=n, c=c, levels=np.full(len(n), levels)),
        }

    return score


def counted(rows: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many siblings of every answer can be judged, how many of these are right, whether it can be judged, [n]."""
    cases = list(zip(*(rows[name].to_pylist() for name in ("verifier", "answer", "reference")), strict=True))
    known = {case: metric_of(*case) for case in set(cases)}
    judged = np.array([known[case] is not None for case in cases], bool) & rows["error"].is_null().to_numpy()
    right = np.array([known[case] == 1 for case in cases], bool) & judged
    group = siblings(rows)
    return np.bincount(group, judged)[group], np.bincount(group, right)[group], judged


def pass_at_k(n: float, c: float, k: int) -> float | None:
    """1 - C(n - c, k) / C(n, k); None where n < k."""
    if n < k:
        return None
    missed = 1.0
    for i in range(int(n - c) + 1, int(n) + 1):
        missed *= 1 - k / i
    return 1 - missed
