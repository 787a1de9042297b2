"""Codes: a state as a few whole numbers, each of which says what the ones before it left."""

from __future__ import annotations

import numpy as np
from pydantic import PositiveInt

from pipeline.kinds.objective import Tap
from pipeline.kinds.transform import Signals, Transform, transform
from pipeline.tables import ids
from pipeline.transforms.prototypes import means, nearest


@transform(adds=("codes",), random=True)
def residual(*, size: PositiveInt = 16, levels: PositiveInt = 2, tap: Tap = "last") -> Transform:
    """The number of the nearest of `size` centres to the teacher's state at a place, then of the nearest to what is
    left of it, and so on: the tap `codes`, a number for each of the `levels`. Centres are learnt from `with`.

    Paper: Rajput et al. 2023 (TIGER, arXiv 2305.05065), codes of items; PRORec 2025 (arXiv 2502.06269), of vectors that
    were fused before.
    Differs: k-means for each level, one after another, in place of an autoencoder that learns all at once.
    """

    def make(signals: Signals, beside: Signals, seed: int) -> Signals:
        order = np.argsort(beside.example_B[beside.row_N], kind="stable")
        left_ND, own_ND = beside.features[tap].astype(np.float64)[order], signals.features[tap].astype(np.float64)
        codes = []
        for level in range(levels):
            centres_KD = means(left_ND, min(size, len(left_ND)), ids.generator(seed, "codes", level))
            codes.append(nearest(own_ND, centres_KD)[0])
            left_ND, own_ND = left_ND - centres_KD[nearest(left_ND, centres_KD)[0]], own_ND - centres_KD[codes[-1]]
        return signals.with_feature("codes", np.stack(codes, 1))

    return make
