"""What a class has in common: means of its rows."""

from __future__ import annotations

import numpy as np

from pipeline.kinds.objective import Tap
from pipeline.kinds.transform import Signals, Transform, transform


@transform(adds=("class_mean",), random=False)
def mean(*, tap: Tap = "last") -> Transform:
    """The mean of the teacher's states over the places of a class, for each of its places, as the tap `class_mean`.

    The class of a place is the outcome that stands there, and where that is unknown the teacher's likeliest. Means are
    those of the table `with`; a class that it has no place of has the mean of all.
    Paper: Wang et al. 2023 (ND loss, arXiv 2305.17007), the class means of the teacher's embeddings.
    Differs: nothing.
    """

    def make(signals: Signals, beside: Signals, seed: int) -> Signals:
        states_ND, class_N = beside.features[tap].astype(np.float64), class_of(beside)
        sums = {int(c): states_ND[class_N == c].mean(0) for c in np.unique(class_N)}
        of_all = states_ND.mean(0)
        found = [sums.get(int(c), of_all) for c in class_of(signals)]
        return signals.with_feature("class_mean", np.array(found).reshape(len(found), len(of_all)))

    return make


def class_of(signals: Signals) -> np.ndarray:
    """The class of every place, [N]."""
    return np.where(signals.target_N >= 0, signals.target_N, signals.ids_NK[:, 0])
