"""Scorers that compare an answer with the reference."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.kinds.scorer import Scorer, quantities_of, scorer
from pipeline.kinds.verifier import metric_of


@scorer(reads=("verifier", "reference", "answer", "error"), score="correct", means="right")
def correct() -> Scorer:
    """1 if the prompt's verifier finds the answer right, 0 if not or if it read none; null without verifier or
    reference, or if the request failed. Quantities: correct, has_answer.

    Paper: the label of rejection sampling (Yuan et al. 2023, RFT) and of STaR (Zelikman et al. 2022).
    Differs: nothing.
    """

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        cases = list(zip(*(rows[name].to_pylist() for name in ("verifier", "answer", "reference")), strict=True))
        # A verifier may be slow, and many answers are the same.
        found = {case: metric_of(*case) for case in set(cases)}
        correct = np.array([found[case] or 0.0 for case in cases], np.float64)
        answered = np.array([answer is not None for _, answer, _ in cases], np.float64)
        unjudged = np.array([found[case] is None for case in cases], bool)
        failed = rows["error"].is_valid().to_numpy()
        return {
            "score": pa.array(correct, mask=unjudged | failed),
            "quantities": quantities_of(correct=correct, has_answer=answered),
        }

    return score
