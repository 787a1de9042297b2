"""Every retriever keeps the laws of `laws/retriever.py`, and each of these can be broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from pipeline.core.methods import find
from pipeline.kinds.retriever import Found, best_of
from pipeline.laws import retriever as laws
from pipeline.laws.law import Broken
from pipeline.laws.retriever import Case, Law
from tests.laws.ours import held, named

SOUND = next(laws.cases(find("retriever", "bm25.best")))
Texts = Sequence[str]


@pytest.mark.parametrize(("law", "case"), held("retriever"), ids=named)
def test_law(law: Law, case: Case) -> None:
    law(case)


def one_too_few(texts: Texts, queries: Texts, count: int) -> Found:
    return SOUND.retriever(texts, queries, max(count - 1, 0))


def worst_first(texts: Texts, queries: Texts, count: int) -> Found:
    found = SOUND.retriever(texts, queries, count)
    return Found(found.at[:, ::-1], found.scores[:, ::-1])


def one_twice(texts: Texts, queries: Texts, count: int) -> Found:
    found = SOUND.retriever(texts, queries, count)
    return Found(found.at * 0, found.scores)


def unknown(texts: Texts, queries: Texts, count: int) -> Found:
    found = SOUND.retriever(texts, queries, count)
    return Found(found.at, np.where(found.scores == 0, np.nan, found.scores))


def last_of_equal_ones(texts: Texts, queries: Texts, count: int) -> Found:
    found = SOUND.retriever(list(texts)[::-1], queries, count)
    return Found(len(texts) - 1 - found.at, found.scores)


def by_place(texts: Texts, queries: Texts, count: int) -> Found:
    return best_of([-np.arange(len(texts), dtype=float)] * len(queries), len(queries), min(count, len(texts)))


def by_the_mean_of_all(texts: Texts, queries: Texts, count: int) -> Found:
    found = SOUND.retriever(texts, queries, len(texts))
    return Found(found.at[:, :count], found.scores[:, :count] - found.scores.mean())


def by_how_many(texts: Texts, queries: Texts, count: int) -> Found:
    found = SOUND.retriever(texts, queries, count)
    return Found(found.at, found.scores / count)


BROKEN = {
    "one too few": (laws.places_and_scores, one_too_few),
    "the worst first": (laws.places_and_scores, worst_first),
    "one twice": (laws.places_and_scores, one_twice),
    "NaN": (laws.places_and_scores, unknown),
    "the last of equal ones": (laws.a_text_finds_itself, last_of_equal_ones),
    "by place": (laws.a_text_finds_itself, by_place),
    "beside the others": (laws.other_queries_change_nothing, by_the_mean_of_all),
    "by how many": (laws.fewer_are_the_first_of_more, by_how_many),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_retriever_breaks_a_law(fault: str) -> None:
    law, retriever = BROKEN[fault]
    with pytest.raises(Broken):
        law(replace(SOUND, retriever=retriever))
