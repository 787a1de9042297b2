"""Two models that see items alike are no distance apart, however wide and however turned their states are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from pipeline.core.methods import find
from pipeline.errors import Refused
from pipeline.kinds.backend import PLAIN, Reading, Tokens, Want
from pipeline.kinds.evaluator import Exam, Mark
from tests.evaluators.made import Saying, items, marks

ASKED = items(*["abc"[i % 3] for i in range(9)])
RNG = np.random.default_rng(0)
STATES_ND, LOGITS_NV = RNG.normal(size=(9, 4)), RNG.normal(size=(9, 3))


@dataclass
class Seeing(Saying):
    """Its states and logits of the items."""

    states_ND: np.ndarray = field(default_factory=lambda: STATES_ND)
    logits_NV: np.ndarray = field(default_factory=lambda: LOGITS_NV)

    def tokens(self, texts: Sequence[str | None]) -> list[Tokens | None]:
        return [Tokens(f"p{i}", ["abc".index(text)], [0]) if text else None for i, text in enumerate(texts)]

    def read(self, tokens: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        p_NV = np.exp(self.logits_NV) / np.exp(self.logits_NV).sum(1, keepdims=True)
        for one in reversed(tokens):
            row = int(one.id[1:])
            order = np.argsort(-p_NV[row])
            logs = np.log(p_NV[row, order])[None]
            yield Reading(one.id, logs[0, :1], order[None], logs, embedding=self.states_ND[row])


def seen(semantic: float = 1.0, **other: Any) -> list[Mark]:
    return marks("similarity.diswot", ASKED, Seeing("s", ASKED, **other), Seeing("t", ASKED), semantic=semantic)


def test_turned_stretched_and_wider_states_are_as_far_as_none() -> None:
    turn, _ = np.linalg.qr(RNG.normal(size=(6, 6)))
    found = seen(states_ND=3 * STATES_ND @ turn[:4])
    assert all(mark.metric == pytest.approx(0, abs=1e-12) for mark in found)


def test_what_it_is_made_of_is_what_is_written_out() -> None:
    other_ND, other_NV = RNG.normal(size=(9, 5)), RNG.normal(size=(9, 3))
    found = seen(semantic=0.5, states_ND=other_ND, logits_NV=other_NV)

    def unit(states: np.ndarray) -> np.ndarray:
        inner = states @ states.T
        return inner / np.linalg.norm(inner, axis=1, keepdims=True)

    def head(states: np.ndarray, logits: np.ndarray) -> np.ndarray:
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return (p - np.eye(3)[np.arange(9) % 3]).T @ states / 9

    apart = (unit(other_ND) - unit(STATES_ND)) ** 2
    semantic = ((unit(head(other_ND, other_NV)) - unit(head(STATES_ND, LOGITS_NV))) ** 2).sum() / 3
    assert [m.quantities["relation"] for m in found] == pytest.approx((apart.sum(1) / 9).tolist())
    assert [m.metric for m in found] == pytest.approx((apart.sum(1) / 9 + 0.5 * semantic).tolist())


def test_an_item_without_an_answer_has_no_mark() -> None:
    asked = items(*[item.reference for item in ASKED[:-1]], None)
    found = list(find("evaluator", "similarity.diswot").factory()(Exam(asked, Seeing("s", asked), Seeing("t", asked))))
    assert [mark.item for mark in found] == asked[:-1]


class Finer(Seeing):
    """One that spells an answer by an outcome of its own for every item."""

    def tokens(self, texts: Sequence[str | None]) -> list[Tokens | None]:
        return [Tokens(f"p{i}", [i], [0]) for i in range(len(texts))]


def test_other_outcomes_are_refused_unless_they_are_not_looked_at() -> None:
    with pytest.raises(Refused, match="by 3 and 9 outcomes; give both the same outcomes, or write `semantic: 0`"):
        marks("similarity.diswot", ASKED, Seeing("s", ASKED), Finer("t", ASKED))
    found = marks("similarity.diswot", ASKED, Seeing("s", ASKED), Finer("t", ASKED), semantic=0)
    assert [mark.metric for mark in found] == [0.0] * 9
