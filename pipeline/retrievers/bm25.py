"""Retrieval by shared words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field, NonNegativeFloat, PositiveInt

from pipeline.core.methods import lazy
from pipeline.kinds.retriever import Found, Retriever, best_of, retriever
from pipeline.text.ngrams import plain, split, without_punctuation

bm25s = lazy("bm25s")


@retriever()
def best(
    *, k1: NonNegativeFloat = 1.2, b: Annotated[float, Field(ge=0, le=1)] = 0.75, words: PositiveInt = 512
) -> Retriever:
    """The texts with the highest BM25 for a query, of which the first `words` words count; case, punctuation and
    typographic forms do not.

    Paper: Robertson and Zaragoza 2009 (The Probabilistic Relevance Framework), equation 3.15, in Lucene's form, which
    is never negative; computed by bm25s (Lu 2024, arXiv 2407.03618). NesyCD (arXiv 2409.13203) finds lessons by BM25.
    Differs: no stop words and no stems, which belong to a language; a word that a query repeats counts as often.
    """

    def find(texts: Sequence[str], queries: Sequence[str], count: int) -> Found:
        return best_of(_scores(texts, queries, k1, b, words), len(queries), min(count, len(texts)))

    return find


def _scores(texts: Sequence[str], queries: Sequence[str], k1: float, b: float, most: int) -> Iterator[np.ndarray]:
    """For every query the scores of all texts, [texts]; 0 for a text without words."""
    cut = [(place, own) for place, own in enumerate(_words(texts)) if own]
    index = bm25s.BM25(k1=k1, b=b, method="lucene", dtype="float64")
    if cut:
        index.index([own for _, own in cut], show_progress=False)
    for query in _words(queries):
        scores = np.zeros(len(texts))
        if cut and query:
            # Rounded, because the last bits of a logarithm depend on the processor.
            scores[[place for place, _ in cut]] = index.get_scores(query[:most]).round(9)
        yield scores


def _words(texts: Sequence[str]) -> list[list[str]]:
    return [split(text) for text in without_punctuation(plain(pa.array(texts, pa.string()))).to_pylist()]
