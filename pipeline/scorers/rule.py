"""A rule that judges every text by itself, as a scorer of answers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.kinds.rule import Alone
from pipeline.kinds.scorer import Scorer, quantities_of

READS = ("content",)


def kept_by(rule: Alone) -> Scorer:
    """1 for an answer that the rule would keep, 0 for one that it would not, whose detail is the evidence; null if the
    request failed. Quantities: kept, and value, the number that the rule looked at."""

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        texts = rows["content"].to_pylist()
        found = [rule.judge(text or "") for text in texts]
        failed = np.array([text is None for text in texts], bool)
        kept = np.array([judged.evidence is None for judged in found], np.float64)
        return {
            "score": pa.array(kept, mask=failed),
            "quantities": quantities_of(kept=kept, value=np.array([judged.value for judged in found], np.float64)),
            "detail": pa.array([judged.evidence for judged in found], pa.string(), mask=failed),
        }

    return score
