"""Evaluators of answers with a line for each place: how well a picture's masks and points agree with the right ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pipeline.evaluators.answers import marked
from pipeline.kinds.evaluator import Evaluator, Exam, Mark, evaluator
from pipeline.kinds.verifier import reference_of
from pipeline.text.places import distances, overlap

Lines = Sequence[str]


@evaluator(measure="iou", better="higher", needs=("generate",), finds=("verifier",))
def iou() -> Evaluator:
    """The intersection over union of the greedy answer's classes, as the mean over those of a picture; 0 for an answer
    of another length.

    Paper: Everingham et al. 2010 (PASCAL VOC), the measure of segmentation.
    Differs: the mean over a picture's classes is taken before that over pictures.
    """
    return _judged(overlap)


@evaluator(measure="pixels off", better="lower", needs=("generate",), finds=("verifier",))
def distance(*, most: float = 100.0) -> Evaluator:
    """How far the points of the greedy answer lie from the right ones, as the mean over those of a picture; what is no
    point, and what is further, counts as `most` pixels.

    Paper: none; the mean per joint position error of human pose estimation, in pixels.
    Differs: distances are capped.
    """

    def far(said: Lines, right: Lines) -> float | None:
        found = distances(said, right)
        return sum(min(each, most) for each in found) / len(found) if found else None

    return _judged(far)


def _judged(of: Callable[[Lines, Lines], float | None]) -> Evaluator:
    """A mark for every item with a reference."""

    def judge(exam: Exam) -> Iterator[Mark]:
        for item, [answer] in zip(exam.items, exam.model.answers(exam.greedy), strict=True):
            if item.verifier is None or item.reference is None:
                continue
            right = reference_of(item.verifier, item.reference)
            metric = None if right is None else of((item.short(answer) or "").split("\n"), right.split("\n"))
            yield marked(item, answer, metric, {})

    return judge
