"""Scorers that compress an answer: how little of it is new."""

from __future__ import annotations

import zlib as library

import numpy as np
import pyarrow as pa

from pipeline.kinds.scorer import Scorer, quantities_of, scorer


@scorer(reads=("content", "error"), score="compressed")
def zlib() -> Scorer:
    """How many bytes an answer has when zlib has compressed it; null if the request failed.

    Few are left of what repeats itself, which a student has by heart soonest (`memorisation.unlikely` of a selection).
    Quantities: compressed, bytes before it.

    Paper: Carlini et al. 2021 (Extracting Training Data, arXiv 2012.07805), section 5.1, zlib entropy.
    Differs: nothing; level 6 of zlib, whose last byte may be another in another version of it.
    """

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        texts = [(text or "").encode() for text in rows["content"].to_pylist()]
        compressed = np.array([len(library.compress(text)) for text in texts], np.float64)
        whole = np.array([len(text) for text in texts], np.float64)
        quantities = quantities_of(compressed=compressed, bytes=whole)
        return {"score": pa.array(compressed, mask=rows["error"].is_valid().to_numpy()), "quantities": quantities}

    return score
