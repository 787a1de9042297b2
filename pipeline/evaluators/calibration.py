"""Evaluators of how well a model knows what it knows."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pipeline.evaluators.answers import JUDGED, marked
from pipeline.kinds.evaluator import Evaluator, Exam, Mark, evaluator

# A confidence of 0 or 1 that is wrong would cost infinitely much.
LEAST = 1e-6


@evaluator(measure="brier", better="lower", needs=("generate", "token_logprobs"), finds=JUDGED)
def brier() -> Evaluator:
    """The squared distance of a greedy answer's confidence from whether it is right; null where either is unknown.

    Confidence is the probability of the whole answer. Quantities: right; confidence; nll, the log score, in nats:
    -log(confidence) of a right answer and -log(1 - confidence) of a wrong one; tokens. ECE, reliability and
    sharpness, which are of many answers, the report computes for any entry that has confidences.

    Paper: Brier 1950; Guo et al. 2017 (On Calibration of Modern Neural Networks, arXiv 1706.04599).
    Differs: confidence is cut at 1e-6 and 1 - 1e-6 for the log score alone.
    """

    def judge(exam: Exam) -> Iterator[Mark]:
        for item, [answer] in zip(exam.items, exam.model.answers(exam.greedy), strict=True):
            plain, right = marked(item, answer, None, {}), item.right(answer)
            sure = plain.confidence
            if right is None or sure is None:
                yield plain
                continue
            given = min(max(sure if right else 1 - sure, LEAST), 1 - LEAST)
            numbers = {"right": right, "confidence": sure, "nll": -math.log(given)}
            yield marked(item, answer, (sure - right) ** 2, numbers)

    return judge
