"""Evaluators of what a model remembers by heart. What it gives back of single answers is a reader's number
(`readers/memorisation.py`)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pipeline.kinds.evaluator import Evaluator, Exam, Mark, evaluator


@evaluator(measure="exposure", better="lower", needs=("read",), finds=("network",))
def exposure(*, among: str) -> Evaluator:
    """How much likelier than strangers a canary is to the model, in bits: log2(N) - log2(rank) of its `solution` among
    those of the domain `among`, which nobody was trained on, and itself.

    Of one that was never seen it is 1.4 bits on average, whatever N is; log2(N) is the most that N items can show.
    Strangers are ranked among themselves. Items without a solution have no mark. Quantities: rank, of (N), nll_sum,
    tokens.

    Paper: Carlini et al. 2019 (The Secret Sharer, arXiv 1802.08232), definition 5, in its rank form.
    Differs: the candidates are drawn and few; of equal likelihoods every one has the middle rank.
    """

    def judge(exam: Exam) -> Iterator[Mark]:
        asked = exam.model.tokens([item.solution for item in exam.items])
        readings = {reading.id: reading for reading in exam.model.read([tokens for tokens in asked if tokens])}
        sums = {
            item.prompt_id: (-float(readings[item.prompt_id].target_logprob.astype("float64").sum()), len(t.positions))
            for item, t in zip(exam.items, asked, strict=True)
            if t is not None
        }
        strangers = {item.prompt_id for item in exam.items if item.domain == among and item.prompt_id in sums}
        for item in exam.items:
            if item.prompt_id not in sums or not strangers:
                continue
            nll, tokens = sums[item.prompt_id]
            others = [sums[name][0] for name in strangers - {item.prompt_id}]
            rank = 1 + sum(other < nll for other in others) + sum(other == nll for other in others) / 2
            numbers = {"rank": rank, "of": len(others) + 1.0, "nll_sum": nll, "tokens": float(tokens)}
            yield Mark(item, math.log2((len(others) + 1) / rank), numbers)

    return judge
