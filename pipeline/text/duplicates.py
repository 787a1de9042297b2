"""Near-duplicates: MinHash finds pairs that may be alike, exact Jaccard similarity decides.

Paper: Broder 1997 (MinHash), Leskovec et al. 2014 (bands). Differs: bands are chosen for recall, since every pair is
verified; and texts that ask for different items are no duplicates however alike they read, because a template filled
with other numbers is another task.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.text.ngrams import MIX, ngrams

HASHES = 128
# A pair at the threshold is missed with this probability; pairs above it, less often.
MISSED = 0.01
BLOCK = 8_000
# Texts of one bucket are compared with this many of those that follow, so that a bucket costs linear time.
WINDOW = 64


@dataclass(frozen=True)
class Twin:
    """A text that another one, which is kept, makes unnecessary. Numbers are positions in the list of texts."""

    kept: int
    like: int
    similarity: float


def bands_for(threshold: float) -> tuple[int, int]:
    """Bands and rows per band: the most rows, so the fewest false candidates, that miss few pairs."""
    for rows in range(HASHES, 1, -1):
        bands = HASHES // rows
        if (1 - threshold**rows) ** bands <= MISSED:
            return bands, rows
    return HASHES, 1


def near_duplicates(texts: pa.Array, items: Sequence[Hashable], *, threshold: float, words: int) -> dict[int, Twin]:
    """The texts to be dropped: of texts that are alike, directly or through others, the first is kept.

    Alike: the Jaccard similarity of their sets of runs of `words` words is at least the threshold, and their items
    are equal. A text of fewer words has no such set, and no duplicate.
    """
    candidates = [(i, j) for i, j in _candidates(texts, threshold, words) if items[i] == items[j]]
    shingles = _shingles(texts, sorted({i for pair in candidates for i in pair}), words)
    root = list(range(len(texts)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    like: dict[int, tuple[int, float]] = {}
    for i, j in sorted(candidates):
        shared = len(shingles[i] & shingles[j])
        similarity = shared / (len(shingles[i]) + len(shingles[j]) - shared)
        if similarity >= threshold:
            first, second = sorted((find(i), find(j)))
            root[second] = first
            like.setdefault(j, (i, similarity))
            like.setdefault(i, (j, similarity))
    return {i: Twin(find(i), *found) for i, found in sorted(like.items()) if find(i) != i}


def _candidates(texts: pa.Array, threshold: float, words: int) -> Iterator[tuple[int, int]]:
    """Pairs of texts, the first before the second, that agree in all hashes of some band."""
    bands, rows = bands_for(threshold)
    owners, keys = _band_keys(texts, bands, rows, words)
    found = []
    for band in keys:
        order = np.argsort(band, kind="stable")
        values = band[order]
        for step in range(1, WINDOW):
            at = np.flatnonzero(values[step:] == values[:-step])
            if len(at) == 0:
                break
            found.append(owners[order[at]] * len(texts) + owners[order[at + step]])
    pairs = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    yield from zip((pairs // len(texts)).tolist(), (pairs % len(texts)).tolist(), strict=True)


def _band_keys(texts: pa.Array, bands: int, rows: int, words: int) -> tuple[np.ndarray, np.ndarray]:
    """The texts that have shingles [D], and for each band one key per such text [bands, D]."""
    # The multipliers and offsets of 128 hash functions, fixed for good.
    random = np.random.Generator(np.random.PCG64(42))
    multiply = random.integers(0, 2**32, HASHES, dtype=np.uint64).astype(np.uint32) | np.uint32(1)
    add = random.integers(0, 2**32, HASHES, dtype=np.uint64).astype(np.uint32)
    owners, keys = [np.zeros(0, np.int64)], [np.zeros((bands, 0), np.uint64)]
    for begin in range(0, len(texts), BLOCK):
        grams = ngrams(texts[begin : begin + BLOCK], words)
        if len(grams.hashes) == 0:
            continue
        short = (grams.hashes >> np.uint64(32)).astype(np.uint32)
        first = np.flatnonzero(np.r_[True, grams.texts[1:] != grams.texts[:-1]])
        block = np.empty((bands, len(first)), np.uint64)
        for band in range(bands):
            key = np.full(len(first), band + 1, np.uint64)
            for k in range(band * rows, (band + 1) * rows):
                key ^= np.minimum.reduceat(short * multiply[k] + add[k], first)
                key *= MIX
                key ^= key >> np.uint64(29)
            block[band] = key
        owners.append(grams.texts[first].astype(np.int64) + begin)
        keys.append(block)
    return np.concatenate(owners), np.concatenate(keys, axis=1)


def _shingles(texts: pa.Array, chosen: list[int], words: int) -> dict[int, frozenset[int]]:
    """The sets of shingles of some texts, as hashes of 64 bits."""
    sets: dict[int, frozenset[int]] = {}
    for begin in range(0, len(chosen), BLOCK):
        block = chosen[begin : begin + BLOCK]
        grams = ngrams(texts.take(pa.array(block, pa.int64())), words)
        ends = np.searchsorted(grams.texts, np.arange(len(block) + 1))
        hashes = grams.hashes.tolist()
        sets.update({i: frozenset(hashes[ends[k] : ends[k + 1]]) for k, i in enumerate(block)})
    return sets
