"""Overlap: how many runs of words two texts have in common, counted for many pairs at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.text.ngrams import ngrams

# Pairs that are counted together. Their number takes the lowest bits of a hash, which has 51 left to tell the runs of
# one pair apart.
PAIR_BITS = 12
SIDE, PAIR = np.uint64(1), np.uint64(((1 << PAIR_BITS) - 1) << 1)


def overlaps(texts: pa.Array, others: pa.Array, pairs: np.ndarray, words: int) -> np.ndarray:
    """For pairs of a text and one of the others, [P, 2]: how many distinct runs of `words` words the first has, the
    second has, and both have, [P, 3]."""
    counts = np.zeros((len(pairs), 3), np.int64)
    for begin in range(0, len(pairs), 1 << PAIR_BITS):
        some = pairs[begin : begin + (1 << PAIR_BITS)]
        keys = np.concatenate([_keys(texts, some[:, 0], words), _keys(others, some[:, 1], words) | SIDE])
        keys.sort()
        keys = keys[np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]][: len(keys)])]
        pair = ((keys & PAIR) >> SIDE).astype(np.int64)
        second = (keys & SIDE).astype(bool)
        # Of one run of one pair the second's key follows the first's.
        both = (keys[1:] ^ keys[:-1]) == SIDE
        for column, chosen in enumerate((pair[~second], pair[second], pair[1:][both & second[1:]])):
            counts[begin : begin + len(some), column] = np.bincount(chosen, minlength=len(some))
    return counts


def _keys(texts: pa.Array, chosen: np.ndarray, words: int) -> np.ndarray:
    """A key for every run of words of every chosen text: its hash, the text's place among the chosen, a bit that is
    0."""
    distinct, place = np.unique(chosen, return_inverse=True)
    grams = ngrams(texts.take(pa.array(distinct)), words)
    begin = np.searchsorted(grams.texts, np.arange(len(distinct) + 1))
    number = np.diff(begin)[place]
    pair = np.repeat(np.arange(len(chosen)), number)
    at = np.arange(len(pair)) + np.repeat(begin[place] - np.cumsum(number) + number, number)
    return (grams.hashes[at] & ~(PAIR | SIDE)) | (pair.astype(np.uint64) << SIDE)
