"""Evaluators of how alike two models see the items of a pool, whether they were trained or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydantic import NonNegativeFloat

from pipeline.errors import Refused
from pipeline.kinds.backend import Tokens, Want
from pipeline.kinds.evaluator import Evaluator, Exam, Mark, Model, evaluator

# So many of the likeliest outcomes are looked at; all others count as impossible.
OUTCOMES = 512
WANT = Want(top_k=OUTCOMES, embedding=True)


@evaluator(measure="dissimilarity", better="lower", beside=True, needs=("form", *WANT.needs()))
def diswot(*, semantic: NonNegativeFloat = 1.0) -> Evaluator:
    """How far a student is from seeing items as its teacher does, neither of which need be trained: what chooses an
    architecture before anything is.

    Quantities: `relation`, the squared distance between how alike an item is to all others in the states of either
    (rows of inner products, of length 1), and `semantic`, the same of how alike outcomes are in the gradient of the
    cross-entropy by the head's weights, which is one number for the pool. The metric is their sum, the second
    `semantic` times. Items are answered by their solution, or else their reference.

    Paper: Dong et al. 2023 (DisWOT, CVPR), the relation and the semantic similarity; Tung and Mori 2019
    (similarity-preserving distillation, arXiv 1907.09682), the first.
    Differs: states are those that the head is given, and not the map before pooling; the second compares outcomes with
    outcomes in place of channels with channels, so that widths need not be equal.
    """

    def judge(exam: Exam) -> Iterator[Mark]:
        models = exam.model, exam.other
        asked = [{t.id: t for t in model.tokens(_right(exam)) if t is not None} for model in models]
        items = [item for item in exam.items if all(item.prompt_id in tokens for tokens in asked)]
        if not items:
            return
        order = [item.prompt_id for item in items]
        (one_ND, one_CD), (other_ND, other_CD) = (
            _seen(model, [tokens[name] for name in order]) for model, tokens in zip(models, asked, strict=True)
        )
        relation_N = np.square(_similar(one_ND) - _similar(other_ND)).sum(1) / len(items)
        told = 0.0
        if semantic:
            if len(one_CD) != len(other_CD):
                raise Refused(
                    f"{exam.model.name} and {exam.other.name} name the right answers by {len(one_CD)} and "
                    f"{len(other_CD)} outcomes; give both the same outcomes, or write `semantic: 0`"
                )
            told = float(np.square(_similar(one_CD) - _similar(other_CD)).sum(1).mean())
        for item, relation in zip(items, relation_N.tolist(), strict=True):
            yield Mark(item, relation + semantic * told, {"relation": relation, "semantic": told})

    return judge


def _right(exam: Exam) -> list[str | None]:
    return [item.solution or item.reference for item in exam.items]


def _seen(model: Model, tokens: Sequence[Tokens]) -> tuple[np.ndarray, np.ndarray]:
    """A model's states of some items, [N, D], and the gradient of the cross-entropy by the rows of its head, [C, D],
    for the outcomes that are right somewhere; of an item means over its places."""
    readings = {reading.id: reading for reading in model.read(tokens, WANT)}
    right = [np.asarray(t.token_ids)[np.asarray(t.positions)] for t in tokens]
    names = np.unique(np.concatenate(right))
    states, error_NC = [], np.zeros((len(tokens), len(names)))
    for row, (one, outcomes) in enumerate(zip(tokens, right, strict=True)):
        reading: Any = readings[one.id]
        at = np.searchsorted(names, reading.topk_ids).clip(max=len(names) - 1)
        p = np.where(names[at] == reading.topk_ids, np.exp(reading.topk_logprobs.astype(np.float64)), 0.0)
        np.add.at(error_NC[row], at, p / len(outcomes))
        np.subtract.at(error_NC[row], np.searchsorted(names, outcomes), 1 / len(outcomes))
        states.append(reading.embedding.astype(np.float64))
    return np.stack(states), error_NC.T @ np.stack(states) / len(tokens)


def _similar(states_ND: np.ndarray) -> np.ndarray:
    """Inner products of each with all, [N, N], a row brought to length 1."""
    inner_NN = states_ND @ states_ND.T
    return inner_NN / np.maximum(np.linalg.norm(inner_NN, axis=1, keepdims=True), 1e-12)
