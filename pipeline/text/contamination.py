"""Contamination: runs of words that a text shares with a benchmark.

Paper: Brown et al. 2020 (GPT-3, 13 words); Muennighoff et al. 2025 (s1, 8 words). Differs: any shared run counts, as
in s1; hits of hashes are verified on the words themselves. What many benchmark items say, such as an instruction, says
nothing about one of them: `Template` takes it out of both sides first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.text.ngrams import Grams, ngrams

BLOCK = 8_000
# A run of RUN words is of a template if more than COMMON items have it, and more than this share of all.
RUN, COMMON, SHARE = 8, 3, 0.02
FILTER_BITS = 24


@dataclass(frozen=True)
class Shared:
    """The first run of words that a text shares, and the benchmark item, by its position, that has it too."""

    item: int
    words: str


def shared_ngrams(texts: pa.Array, benchmark: pa.Array, n: int) -> dict[int, Shared]:
    """The texts that share a run of n words with some benchmark item. Shorter texts share none, by definition."""
    index = _Index(ngrams(benchmark, n))
    found: dict[int, Shared] = {}
    for begin in range(0, len(texts), BLOCK):
        grams = ngrams(texts[begin : begin + BLOCK], n)
        for at in index.hits(grams.hashes).tolist():
            text = begin + int(grams.texts[at])
            if text not in found:
                words = grams.spelled(at)
                item = index.item_with(int(grams.hashes[at]), words)
                if item is not None:
                    found[text] = Shared(item, words)
    return found


class Template:
    """The words that many items of a benchmark have in common, such as an instruction: runs of RUN words."""

    def __init__(self, benchmark: pa.Array) -> None:
        grams = ngrams(benchmark, RUN)
        pairs = np.unique(np.stack([grams.hashes, grams.texts.astype(np.uint64)]), axis=1)
        hashes, items = np.unique(pairs[0], return_counts=True)
        self.hashes = hashes[items > max(COMMON, len(benchmark) * SHARE)]

    def without(self, texts: pa.Array) -> pa.Array:
        """Texts without the words of the template, one space between those that stay."""
        if len(self.hashes) == 0:
            return texts
        grams = ngrams(texts, RUN)
        common = grams.starts[np.isin(grams.hashes, self.hashes)]
        covered = np.zeros(len(grams.words), bool)
        for k in range(RUN):
            covered[common + k] = True
        left, owners = grams.words.filter(pa.array(~covered)), grams.owners[~covered]
        offsets = np.searchsorted(owners, np.arange(len(texts) + 1))
        lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), left.dictionary_decode())
        return pc.binary_join(lists, " ")


class _Index:
    """The benchmark's n-grams by hash: a bit table turns nearly all others away before the search."""

    def __init__(self, grams: Grams) -> None:
        self.grams = grams
        self.hashes, self.first = np.unique(grams.hashes, return_index=True)
        self.filter = np.zeros(1 << FILTER_BITS, bool)
        self.filter[self._slots(self.hashes)] = True

    @staticmethod
    def _slots(hashes: np.ndarray) -> np.ndarray:
        return (hashes >> np.uint64(64 - FILTER_BITS)).astype(np.int64)

    def hits(self, hashes: np.ndarray) -> np.ndarray:
        """Positions of those hashes that the benchmark has."""
        if len(self.hashes) == 0:
            return np.zeros(0, np.int64)
        maybe = np.flatnonzero(self.filter[self._slots(hashes)])
        place = np.searchsorted(self.hashes, hashes[maybe]).clip(max=len(self.hashes) - 1)
        return maybe[self.hashes[place] == hashes[maybe]]

    def item_with(self, value: int, words: str) -> int | None:
        """The first item with this n-gram; none if only the hash is the same."""
        gram = int(self.first[np.searchsorted(self.hashes, np.uint64(value))])
        return int(self.grams.texts[gram]) if self.grams.spelled(gram) == words else None
