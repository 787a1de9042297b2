"""Contamination: runs of words that a text shares with a benchmark.

Paper: Brown et al. 2020 (GPT-3, 13 words); Muennighoff et al. 2025 (s1, 8 words); Broder 1997 (containment). Differs:
any shared run counts, as in s1; hits of hashes are verified on the words themselves. What many benchmark items say,
such as an instruction, says nothing about one of them: `Template` takes it out of both sides first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.text.ngrams import Grams, blocks, ngrams, words_of
from pipeline.text.overlap import overlaps

# A run of RUN words is of a template if more than COMMON items have it, and more than this share of all.
RUN, COMMON, SHARE = 8, 3, 0.02


@dataclass(frozen=True)
class Shared:
    """The first run of words that a text shares, and the benchmark item, by its position, that has it too."""

    item: int
    words: str


def shared_ngrams(texts: pa.Array, benchmark: pa.Array, n: int) -> dict[int, Shared]:
    """The texts that share a run of n words with some benchmark item. Shorter texts share none, by definition."""
    index = _Index(ngrams(benchmark, n))
    found: dict[int, Shared] = {}
    for begin, some in blocks(texts):
        grams = ngrams(some, n)
        for at in index.hits(grams.hashes).tolist():
            text = begin + int(grams.texts[at])
            if text not in found:
                words = grams.spelled(at)
                item = index.item_with(int(grams.hashes[at]), words)
                if item is not None:
                    found[text] = Shared(item, words)
    return found


@dataclass(frozen=True)
class Contained:
    """The benchmark item, by its position, of which a text has the largest share, and that share."""

    item: int
    share: float


def contained(
    texts: pa.Array, benchmark: pa.Array, same: Callable[[int, int], bool], *, share: float, words: int, least: int
) -> dict[int, Contained]:
    """The texts that have at least a share of the runs of `words` words of some benchmark item of `least` words, if
    `same` says so of the positions of both.

    Such a text has one of any runs of an item that are more than the share leaves out; those are looked for that the
    fewest items have, and what they find is counted.
    """
    long = np.flatnonzero(words_of(benchmark).counts() >= max(least, words))
    items = benchmark.take(pa.array(long))
    probes, owners = _probes(ngrams(items, words), share)
    found: dict[int, Contained] = {}
    for begin, some in blocks(texts):
        grams = ngrams(some, words)
        low, high = (np.searchsorted(probes, grams.hashes, side) for side in ("left", "right"))
        number = high - low
        at = np.arange(number.sum()) + np.repeat(low - np.cumsum(number) + number, number)
        pairs = np.unique(np.repeat(grams.texts, number) * len(items) + owners[at])
        pairs = np.stack(np.divmod(pairs, max(len(items), 1)), axis=1)
        _, whole, both = overlaps(some, items, pairs, words).T
        part = both / np.maximum(whole, 1)
        for (text, item), value in zip(pairs[part >= share].tolist(), part[part >= share].tolist(), strict=True):
            hit = Contained(int(long[item]), value)
            best = found.get(begin + text)
            if (best is None or value > best.share) and same(begin + text, hit.item):
                found[begin + text] = hit
    return found


def _probes(grams: Grams, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Of every text its rarest runs, as many as the share leaves out and one more: hashes in ascending order, and the
    text of each."""
    hashes, texts = _distinct(grams)
    _, kind, count = np.unique(hashes, return_inverse=True, return_counts=True)
    order = np.lexsort((hashes, count[kind], texts))
    sizes = np.bincount(texts)
    rank = np.arange(len(texts)) - (np.cumsum(sizes) - sizes)[texts[order]]
    rarest = np.sort(order[rank <= sizes[texts[order]] * (1 - share) + 1e-9])
    return hashes[rarest], texts[rarest]


def _distinct(grams: Grams) -> tuple[np.ndarray, np.ndarray]:
    """The runs of words of every text, each once: hashes in ascending order, and the text of each."""
    order = np.argsort(grams.hashes, kind="stable")
    hashes, texts = grams.hashes[order], grams.texts[order]
    new = np.r_[True, (hashes[1:] != hashes[:-1]) | (texts[1:] != texts[:-1])][: len(hashes)]
    return hashes[new], texts[new]


class Template:
    """The words that many items of a benchmark have in common, such as an instruction: runs of RUN words."""

    def __init__(self, benchmark: pa.Array) -> None:
        grams = ngrams(benchmark, RUN)
        hashes, items = np.unique(_distinct(grams)[0], return_counts=True)
        self.hashes = hashes[items > max(COMMON, len(benchmark) * SHARE)]

    def without(self, texts: pa.Array) -> pa.Array:
        """Texts without the words of the template, one space between those that stay."""
        if len(self.hashes) == 0:
            return texts
        return pa.chunked_array([self._without(some) for _, some in blocks(texts)], pa.string()).combine_chunks()

    def _without(self, texts: pa.Array) -> pa.Array:
        grams = ngrams(texts, RUN)
        common = grams.first[np.isin(grams.hashes, self.hashes)]
        covered = np.zeros(len(grams.words.starts), bool)
        for k in range(RUN):
            covered[common + k] = True
        return grams.words.without(covered)


class _Index:
    """The benchmark's n-grams by hash: a bit table turns nearly all others away before the search."""

    def __init__(self, grams: Grams) -> None:
        self.grams = grams
        self.hashes, self.first = np.unique(grams.hashes, return_index=True)
        self.shift = np.uint64(64 - min(len(self.hashes).bit_length() + 4, 26))
        self.filter = np.zeros(1 << (64 - int(self.shift)), bool)
        self.filter[self._slots(self.hashes)] = True

    def _slots(self, hashes: np.ndarray) -> np.ndarray:
        return (hashes >> self.shift).view(np.int64)

    def hits(self, hashes: np.ndarray) -> np.ndarray:
        """Positions of those hashes that the benchmark has."""
        if len(self.hashes) == 0:
            return np.zeros(0, np.int64)
        maybe = np.flatnonzero(self.filter.take(self._slots(hashes)))
        place = np.searchsorted(self.hashes, hashes[maybe]).clip(max=len(self.hashes) - 1)
        return maybe[self.hashes[place] == hashes[maybe]]

    def item_with(self, value: int, words: str) -> int | None:
        """The first item with this n-gram; none if only the hash is the same."""
        gram = int(self.first[np.searchsorted(self.hashes, np.uint64(value))])
        return int(self.grams.texts[gram]) if self.grams.spelled(gram) == words else None
