"""Evaluators of what a model lost on the way from another."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.evaluators.answers import JUDGED, marked
from pipeline.kinds.evaluator import Evaluator, Exam, Mark, evaluator


@evaluator(measure="kept", better="higher", beside=True, needs=("generate",), finds=JUDGED)
def kept() -> Evaluator:
    """Of the items that the model `against` answers right, whether this one still does; null for all others.

    The other is what it was before a training, and the pool a suite that the training is not about. Quantities: right
    and before, of every item that can be judged, so that what was learnt is there too.

    Paper: Kirkpatrick et al. 2017 (arXiv 1612.00796) for the question; Toneva et al. 2019 (arXiv 1812.05159), an item
    that goes from right to wrong.
    Differs: two states of a model are compared, not every step between.
    """

    def judge(exam: Exam) -> Iterator[Mark]:
        both = (model.answers(exam.greedy) for model in (exam.model, exam.other))
        for item, [own], [earlier] in zip(exam.items, *both, strict=True):
            right, before = item.right(own), item.right(earlier)
            known = {} if right is None or before is None else {"right": right, "before": before}
            yield marked(item, own, right if before == 1 else None, known)

    return judge
