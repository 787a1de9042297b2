"""Near-duplicates: MinHash finds pairs that may be alike, exact Jaccard similarity decides.

Paper: Broder 1997 (MinHash), Leskovec et al. 2014 (bands). Differs: bands are chosen for recall, since every pair is
verified; and texts that ask for different items are no duplicates however alike they read, because a template filled
with other numbers is another task.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.text.ngrams import MIX, blocks, ngrams
from pipeline.text.overlap import overlaps

HASHES = 64
# A pair at the threshold is missed with this probability; pairs above it, less often.
MISSED = 0.01
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


def near_duplicates(
    texts: pa.Array, item: Callable[[int], Hashable], *, threshold: float, words: int
) -> dict[int, Twin]:
    """The texts to be dropped: of texts that are alike, directly or through others, the first is kept.

    Alike: the Jaccard similarity of their sets of runs of `words` words is at least the threshold, and their items, of
    which `item` gives the one of a position, are equal. A text of fewer words has no such set, and no duplicate.
    """
    item = functools.cache(item)
    found = _candidates(texts, threshold, words)
    pairs = found[np.fromiter((item(i) == item(j) for i, j in found.tolist()), bool, len(found))]
    first, second, shared = overlaps(texts, texts, pairs, words).T
    similarity = shared / np.maximum(first + second - shared, 1)
    alike = similarity >= threshold
    root: dict[int, int] = {}

    def find(i: int) -> int:
        while root.setdefault(i, i) != i:
            root[i] = i = root[root[i]]
        return i

    like: dict[int, tuple[int, float]] = {}
    for (i, j), value in zip(pairs[alike].tolist(), similarity[alike].tolist(), strict=True):
        low, high = sorted((find(i), find(j)))
        root[high] = low
        like.setdefault(j, (i, value))
        like.setdefault(i, (j, value))
    return {i: Twin(find(i), *twin) for i, twin in sorted(like.items()) if find(i) != i}


def _candidates(texts: pa.Array, threshold: float, words: int) -> np.ndarray:
    """Pairs of positions of texts [P, 2], the first before the second, that agree in all hashes of some band."""
    bits = np.uint64(len(texts).bit_length())
    found = [np.zeros(0, np.int64)]
    for keys in _band_keys(texts, *bands_for(threshold), words):
        # By key, then by position, which takes the lowest bits: a false candidate more is turned away later.
        keys.sort()
        values, owners = keys >> bits, (keys & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
        at = np.arange(len(keys))
        for step in range(1, WINDOW):
            at = at[: np.searchsorted(at, len(keys) - step)]
            at = at[values[at + step] == values[at]]
            if len(at) == 0:
                break
            found.append(owners[at] * len(texts) + owners[at + step])
    pairs = np.unique(np.concatenate(found))
    return np.stack(np.divmod(pairs, max(len(texts), 1)), axis=1)


def _band_keys(texts: pa.Array, bands: int, rows: int, words: int) -> np.ndarray:
    """For each band a key of every text that has shingles, [bands, D]: a hash, and the text's position in its lowest
    bits."""
    # The multipliers and offsets of the hash functions, fixed for good.
    random = np.random.Generator(np.random.PCG64(42))
    multiply = random.integers(0, 2**32, HASHES, dtype=np.uint64).astype(np.uint32) | np.uint32(1)
    add = random.integers(0, 2**32, HASHES, dtype=np.uint64).astype(np.uint32)
    bits = np.uint64(len(texts).bit_length())
    made = [np.zeros((bands, 0), np.uint64)]
    for begin, some in blocks(texts):
        grams = ngrams(some, words)
        if len(grams.hashes) == 0:
            continue
        short = (grams.hashes >> np.uint64(32)).astype(np.uint32)
        hashed = np.empty_like(short)
        first = np.flatnonzero(np.r_[True, grams.texts[1:] != grams.texts[:-1]])
        block = np.empty((bands, len(first)), np.uint64)
        for band in range(bands):
            key = np.full(len(first), band + 1, np.uint64)
            for k in range(band * rows, (band + 1) * rows):
                np.multiply(short, multiply[k], out=hashed)
                np.add(hashed, add[k], out=hashed)
                key ^= np.minimum.reduceat(hashed, first)
                key *= MIX
                key ^= key >> np.uint64(29)
            block[band] = key
        position = (grams.texts[first] + begin).astype(np.uint64)
        made.append((block >> bits << bits) | position)
    return np.concatenate(made, axis=1)
