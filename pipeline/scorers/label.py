"""Scorers that say what people said of an answer."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.contracts import whole
from pipeline.kinds.scorer import Scorer, quantities_of, scorer


@scorer(reads=("label", "note"), score="good")
def given() -> Scorer:
    """1 for an answer that a person called good in `stillhouse view`, 0 for one called bad; null for all others.

    The detail is the person's note. Quantities: good (0 where nobody said anything).

    Paper: none.
    Differs: nothing.
    """

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        label = whole(rows["label"])
        return {
            "score": label,
            "quantities": quantities_of(good=np.nan_to_num(label.to_numpy(zero_copy_only=False))),
            "detail": whole(rows["note"]),
        }

    return score
