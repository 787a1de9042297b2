"""Aspects: what a teacher's distribution over classes says to questions about them."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeInt

from pipeline.errors import Refused
from pipeline.kinds.transform import Signals, Transform, transform
from pipeline.transforms.subclasses import dense

Classes = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]


@transform(adds=("aspects",), topk=False, random=False)
def grouped(*, questions: Annotated[tuple[Classes, ...], Field(min_length=1)] = ((0,),)) -> Transform:
    """The probability of yes to each of the `questions`, as the tap `aspects`, [N, Q]; a question is the classes of
    which the answer is yes, by their numbers in the order of their names, such as all that are round.

    A head of as many outcomes learns it by `targets.binary`.
    Paper: Lee et al. 2025 (multi-aspect knowledge distillation, arXiv 2501.13341), whose teacher is asked in words.
    Differs: the teacher is asked for a class, and what it says of a question is the sum over the question's classes.
    """

    def make(signals: Signals, beside: Signals, seed: int) -> Signals:
        p_NV = np.exp(dense(signals))
        classes = p_NV.shape[1]
        if (most := max(map(max, questions))) >= classes:
            raise Refused(f"aspects.grouped: a question names class {most}, and there are {classes}, numbered from 0")
        yes_NQ = np.stack([p_NV[:, sorted(set(question))].sum(1) for question in questions], 1)
        return signals.with_feature("aspects", yes_NQ.clip(0, 1))

    return make
