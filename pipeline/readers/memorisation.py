"""Readers of what a model has by heart: an answer that it goes on with, word for word."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveInt

from pipeline.kinds.backend import Reading, Want
from pipeline.kinds.reader import Reader, reader


@reader(want=Want(top_k=1))
def extracted(*, prefix: PositiveInt = 50, following: PositiveInt = 50) -> Reader:
    """1 if the model, given the prompt and the first `prefix` tokens of the answer, goes on greedily with the next
    `following` tokens exactly; 0 if not, null for an answer that has fewer tokens.

    The greedy continuation is the text if every one of its tokens is the likeliest after those before it, so one
    reading tells. Quantities: nll_sum and tokens, of the whole answer; run, tokens after the prefix until the
    first that is not the likeliest. A rule `by_heart.score = 0` leaves out of a selection what a model gives back.

    Paper: Carlini et al. 2021 and 2023 (Quantifying Memorization, arXiv 2202.07646), discoverable memorisation with 50
    and 50 tokens; Memorization Dynamics in Knowledge Distillation compares teacher, student and baseline by it.
    Differs: of tokens that are equally likely each counts as the likeliest.
    """

    def read(reading: Reading) -> dict[str, Any]:
        likeliest, target = reading.topk_logprobs, reading.target_logprob
        assert likeliest is not None
        numbers = [("nll_sum", float(-target.astype("float64").sum())), ("tokens", float(len(target)))]
        if len(target) < prefix + following:
            return {"score": None, "quantities": numbers}
        first = likeliest[prefix : prefix + following, 0] <= target[prefix : prefix + following]
        run = following if first.all() else int(first.argmin())
        return {"score": float(first.all()), "quantities": [*numbers, ("run", float(run))]}

    return read
