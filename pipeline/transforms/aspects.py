"""Aspects: what a teacher's distribution over classes, or its words, say to questions about an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@transform(adds=("aspects",), asked=True, random=False)
def answered() -> Transform:
    """The share of yes among the answers to each question that was asked about an example's prompt, as the tap
    `aspects`, [N, Q] in the order of the questions' text: those of `aspects.yes_no`, asked of a teacher k times.

    A head of as many outcomes learns it by `targets.binary`. A question that nobody answered with yes or no for a
    prompt has the mean of all others there, and one half where nobody did for any.
    Paper: Lee et al. 2025 (multi-aspect knowledge distillation, arXiv 2501.13341).
    Differs: shares of k answers in place of the logits of yes and no.
    """

    def make(signals: Signals, beside: Signals, seed: int) -> Signals:
        questions = sorted({question for said in signals.said_B for question in said})
        yes_BQ = np.array([[_share(said, question) for question in questions] for said in signals.said_B])
        known_BQ = ~np.isnan(yes_BQ)
        mean_Q = (np.where(known_BQ, yes_BQ, 0).sum(0) + 0.5 * ~known_BQ.any(0)) / known_BQ.sum(0).clip(1)
        return signals.with_feature("aspects", np.where(known_BQ, yes_BQ, mean_Q)[signals.row_N])

    return make


def _share(said: Mapping[str, Sequence[str | None]], question: str) -> float:
    """The share of yes among the answers that are yes or no, NaN if none is."""
    read = [answer.strip(" .!").lower() for answer in said.get(question, ()) if answer is not None]
    told = [answer == "yes" for answer in read if answer in ("yes", "no")]
    return sum(told) / len(told) if told else np.nan
