"""Evaluators of how like another model a model is, apart from whether either is right."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline.evaluators.answers import JUDGED, marked
from pipeline.kinds.backend import Answer
from pipeline.kinds.evaluator import Evaluator, Exam, Item, Mark, evaluator
from pipeline.kinds.verifier import same
from pipeline.text.overlap import overlaps

WORDS = (1, 2, 3, 4)


def _both(exam: Exam) -> Iterator[tuple[Item, Answer, Answer, dict[str, float]]]:
    """Every item with the greedy answers of both, and which of them are right where that is known."""
    answers = [model.answers(exam.greedy) for model in (exam.model, exam.other)]
    for item, [own], [theirs] in zip(exam.items, *answers, strict=True):
        known = {"right": item.right(own), "other_right": item.right(theirs)}
        yield item, own, theirs, {name: value for name, value in known.items() if value is not None}


@evaluator(measure="agreement", better="higher", beside=True, needs=("generate",), finds=JUDGED)
def answers() -> Evaluator:
    """Whether both models give the same greedy short answer, right or wrong; an answer that cannot be read is a
    disagreement.

    Quantities: right and other_right, which is accuracy and no part of the metric; copied, of items that the other has
    wrong, whether this one has the same.

    Paper: Ramesh et al. 2025 (Generalization vs Fidelity Paradox in Knowledge Distillation, arXiv 2505.15442),
    agreement, which does not predict accuracy; Stanton et al. 2021 (arXiv 2106.05945), top-1 agreement.
    Differs: equal is what the item's verifier calls equal.
    """

    def judge(exam: Exam) -> Iterator[Mark]:
        for item, own, theirs, known in _both(exam):
            one, other = item.short(own), item.short(theirs)
            alike = one is not None and other is not None
            alike = alike and (one == other or bool(item.verifier and same(item.verifier, str(one), str(other))))
            copied = {"copied": float(alike)} if known.get("other_right") == 0 else {}
            yield marked(item, own, float(alike), {**known, **copied})

    return judge


@evaluator(measure="rationale", better="higher", beside=True, needs=("generate",), finds=JUDGED)
def rationale() -> Evaluator:
    """How like the other's text a greedy answer's whole text is: the geometric mean of the shares of their runs of one
    to four words that both have, from 0 to 1; null where either is empty.

    Quantities: right, other_right.

    Paper: Ramesh et al. 2025 (arXiv 2505.15442), reasoning fidelity: BLEU (Papineni et al. 2002) with the teacher's
    rationale as the reference.
    Differs: of distinct runs, and both ways (F1) in place of precision with a penalty for short texts; runs longer than
    a text are left out.
    """

    def judge(exam: Exam) -> Iterator[Mark]:
        rows = list(_both(exam))
        texts = pa.array([own.content or "" for _, own, _, _ in rows], pa.string())
        others = pa.array([theirs.content or "" for _, _, theirs, _ in rows], pa.string())
        pairs = np.repeat(np.arange(len(rows))[:, None], 2, axis=1)
        counts = np.stack([overlaps(texts, others, pairs, words) for words in WORDS]) if rows else np.zeros((4, 0, 3))
        for i, (item, own, _, known) in enumerate(rows):
            there = [(one, two, both) for one, two, both in counts[:, i].tolist() if one and two]
            shares = [2 * both / (one + two) for one, two, both in there]
            yield marked(item, own, float(np.prod(shares)) ** (1 / len(shares)) if shares else None, known)

    return judge
