"""Prototypes: few states that stand for all."""

from __future__ import annotations

import numpy as np
from pydantic import PositiveInt

from pipeline.kinds.objective import Tap
from pipeline.kinds.transform import Signals, Transform, transform
from pipeline.tables import ids

# Rounds of k-means at most, and places whose distances are held at once.
ROUNDS = 50
BLOCK = 4096


@transform(adds=("prototype",), random=True)
def codebook(*, size: PositiveInt = 64, tap: Tap = "last") -> Transform:
    """The prototype next to the teacher's state at a place, as the tap `prototype`: one of `size`, learnt from `with`.

    `feature.hidden` with `teacher_tap: prototype` pulls a student there. `with` may be of another task.
    Paper: inspired by Li et al. 2023 (ProC-KD), prototypes of local features that carry over to other tasks; k-means
    with the seeding of Arthur and Vassilvitskii 2007 learns them.
    Differs: the paper's equations were not read. The student's state is not given attention over the prototypes.
    """

    def make(signals: Signals, beside: Signals, seed: int) -> Signals:
        order = np.argsort(beside.example_B[beside.row_N], kind="stable")
        states_ND = beside.features[tap].astype(np.float64)[order]
        found_KD = means(states_ND, min(size, len(states_ND)), ids.generator(seed, "codebook"))
        own_ND = signals.features[tap].astype(np.float64)
        return signals.with_feature("prototype", found_KD[nearest(own_ND, found_KD)[0]])

    return make


def means(states_ND: np.ndarray, size: int, draw: np.random.Generator) -> np.ndarray:
    """k-means: `size` centres [K, D] of states, begun far from each other by chance."""
    centres_KD = states_ND[[draw.integers(len(states_ND))]]
    apart_N = nearest(states_ND, centres_KD)[1]
    while len(centres_KD) < size and apart_N.any():
        chosen = states_ND[[np.searchsorted(np.cumsum(apart_N), draw.random() * apart_N.sum(), side="right")]]
        centres_KD = np.concatenate([centres_KD, chosen])
        apart_N = np.minimum(apart_N, nearest(states_ND, chosen)[1])
    before_N = None
    for _ in range(ROUNDS):
        at_N, _ = nearest(states_ND, centres_KD)
        if before_N is not None and np.array_equal(at_N, before_N):
            break
        count_K = np.bincount(at_N, minlength=len(centres_KD))
        sums_KD = np.zeros_like(centres_KD)
        np.add.at(sums_KD, at_N, states_ND)
        kept = count_K > 0
        centres_KD[kept] = sums_KD[kept] / count_K[kept, None]
        before_N = at_N
    return centres_KD


def nearest(states_ND: np.ndarray, centres_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of every state, the first of those as near, and the squared distance to it."""
    found = [
        ((block[:, None] - centres_KD) ** 2).sum(2)
        if len(centres_KD) * block.shape[1] < BLOCK
        else _far(block, centres_KD)
        for block in np.array_split(states_ND, -(-len(states_ND) // BLOCK) or 1)
    ]
    return np.concatenate([d.argmin(1) for d in found]), np.concatenate([d.min(1) for d in found])


def _far(block: np.ndarray, centres_KD: np.ndarray) -> np.ndarray:
    return np.maximum((block**2).sum(1)[:, None] - 2 * block @ centres_KD.T + (centres_KD**2).sum(1), 0)
