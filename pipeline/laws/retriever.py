"""Laws of retrievers: a query's texts are found by what they say, whatever else is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.core.methods import Method
from pipeline.kinds.retriever import Found, Retriever
from pipeline.laws.law import arguments, build, must

# Every text has words of its own; the last two are one text.
TEXTS = (
    "To add two numbers, begin with the last digits and carry.",
    "A list is sorted when no element is below the one before it.",
    "Reverse a word by writing its letters from the end.",
    "In modular arithmetic a remainder is never negative.",
    "\u8fdb\u4f4d\u52a0\u6cd5\u8981\u4ece\u4e2a\u4f4d\u5f00\u59cb",
    "?!",
    "Brackets balance if none closes before it opens.",
    "Brackets balance if none closes before it opens.",
)
QUERIES = (*TEXTS[:4], "How do I carry digits?", "zzz", "", "A list of brackets")


@dataclass(frozen=True)
class Case:
    """A retriever with arguments."""

    method: Method
    arguments: dict[str, Any]
    retriever: Retriever

    def __str__(self) -> str:
        return "-".join([self.method.name, *(f"{k}={v}" for k, v in self.arguments.items())])


def cases(method: Method) -> Iterator[Case]:
    """A retriever with several arguments."""
    return (Case(method, given, build(method, given)) for given in arguments(method, {}))


def places_and_scores(case: Case) -> None:
    """For every query it gives as many distinct texts as were asked for, best first, with finite scores, also of no
    texts and for no queries. Give arrays [queries, count], and fewer columns where there are fewer texts."""
    for texts, queries, count in ((TEXTS, QUERIES, 3), (TEXTS, QUERIES, 99), ((), QUERIES, 2), (TEXTS, (), 2)):
        found, shape = case.retriever(texts, queries, count), (len(queries), min(count, len(texts)))
        must(found.at.shape == found.scores.shape == shape, f"it gives {found.at.shape} instead of {shape}")
        must(bool(np.isfinite(found.scores).all()), "a score is no finite number")
        must(bool((np.diff(found.scores, axis=1) <= 0).all()), "the best do not come first")
        must(all(len({*row}) == len(row) and {*row} <= {*range(len(texts))} for row in found.at.tolist()),
             "it gives one text twice, or one that is not there")  # fmt: skip


def a_text_finds_itself(case: Case) -> None:
    """A query that is a text of the table finds this text first, and of equal texts the first. Sort by score alone, and
    keep the order of equal ones."""
    own = [*range(4), 6, 7]
    found = case.retriever(TEXTS, [TEXTS[i] for i in own], 1).at[:, 0].tolist()
    for i, first in zip(own, found, strict=True):
        must(first == min(i, 6), f"{TEXTS[i]!r} finds {TEXTS[first]!r} in place {first} first")


def other_queries_change_nothing(case: Case) -> None:
    """A query finds the same alone as among others, and when it is asked again. Keep nothing between queries."""
    every = case.retriever(TEXTS, QUERIES, 4)
    for i, query in enumerate(QUERIES):
        must(_same(case.retriever(TEXTS, [query], 4), Found(every.at[i : i + 1], every.scores[i : i + 1])),
             f"{query!r} finds something else alone")  # fmt: skip


def fewer_are_the_first_of_more(case: Case) -> None:
    """Who asks for fewer gets the first of what more would be. Sort all, then cut."""
    more, fewer = case.retriever(TEXTS, QUERIES, 5), case.retriever(TEXTS, QUERIES, 2)
    must(_same(fewer, Found(more.at[:, :2], more.scores[:, :2])), "two are not the first of five")


def _same(one: Found, other: Found) -> bool:
    return bool(np.array_equal(one.at, other.at) and np.array_equal(one.scores, other.scores))


Law = Callable[[Case], None]
LAWS: dict[Law, Callable[[Case], bool]] = dict.fromkeys(
    (places_and_scores, a_text_finds_itself, other_queries_change_nothing, fewer_are_the_first_of_more),
    lambda case: True,
)
