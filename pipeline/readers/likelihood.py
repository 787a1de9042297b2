"""Readers: one number per answer, from the log-probabilities of a model that reads it."""

from __future__ import annotations

from typing import Any

from pipeline.kinds.backend import Reading, Want
from pipeline.kinds.reader import Reader, reader


@reader(want=Want(), means="nll")
def nll() -> Reader:
    """Mean negative log-likelihood per answer token, in nats; the quantities are the sum and the number of tokens.

    Paper: the raw quantity of Gu et al. 2025 (MiniPLM), Li et al. 2024 (IFD) and Liu et al. 2024 (DDK).
    Differs: nothing; differences and ratios of two such scores are SQL (`tables/sql.py`).
    """

    def read(reading: Reading) -> dict[str, Any]:
        total, tokens = float(-reading.target_logprob.astype("float64").sum()), len(reading.target_logprob)
        return {"score": total / tokens, "quantities": [("nll_sum", total), ("tokens", float(tokens))]}

    return read


@reader(want=Want(embedding=True))
def embedding() -> Reader:
    """The mean of the last layer's states at the answer's tokens as `vector`; the score is its length.

    Paper: none; the usual pooled embedding of a causal model, for coresets (Sener & Savarese 2018).
    Differs: nothing.
    """

    def read(reading: Reading) -> dict[str, Any]:
        vector = reading.embedding
        assert vector is not None
        return {
            "score": float((vector.astype("float64") ** 2).sum() ** 0.5),
            "quantities": [("width", float(len(vector)))],
            "vector": vector.tolist(),
        }

    return read
