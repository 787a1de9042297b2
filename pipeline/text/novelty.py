"""Novelty by ROUGE-L: the longest common subsequence of words, found with bits."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.text.ngrams import words_of


@dataclass(frozen=True)
class Like:
    """The first text that was kept, by its position, and is too much like another; and their ROUGE-L."""

    kept: int
    score: float


def repeats(texts: pa.Array, item: Callable[[int], Hashable], *, above: float) -> dict[int, Like]:
    """The plain texts that are not kept: in their order, those whose ROUGE-L with one that is kept, and whose item is
    equal, is above the threshold. A text without words is like none."""
    kept: dict[Hashable, _Kept] = defaultdict(_Kept)
    found: dict[int, Like] = {}
    for i, tokens in enumerate(tokens_of(texts)):
        beside = kept[item(i)]
        like = beside.first_like(tokens, above)
        if like is None:
            beside.add(i, tokens)
        else:
            found[i] = like
    return found


def tokens_of(texts: pa.Array) -> list[list[bytes]]:
    """The words of plain texts, which anything but letters, marks and digits parts."""
    words = words_of(pc.replace_substring_regex(texts, r"[^\p{L}\p{M}\p{N}]+", " "))
    whole, spans = words.data.tobytes(), zip(words.starts.tolist(), words.ends.tolist(), strict=True)
    every = [whole[start:end] for start, end in spans]
    ends = np.cumsum(words.counts()).tolist()
    return [every[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@dataclass
class _Kept:
    """The texts that were kept, and which of them have a word at least k times."""

    places: list[int] = field(default_factory=list)
    tokens: list[Sequence[bytes]] = field(default_factory=list)
    having: dict[tuple[bytes, int], array] = field(default_factory=lambda: defaultdict(lambda: array("q")))

    def add(self, place: int, tokens: Sequence[bytes]) -> None:
        for word in _numbered(tokens):
            self.having[word].append(len(self.places))
        self.places.append(place)
        self.tokens.append(tokens)

    def first_like(self, tokens: Sequence[bytes], above: float) -> Like | None:
        """The first that is too much like these; only those are looked at that have enough words in common."""
        common = np.zeros(len(self.places), np.int64)
        for word in _numbered(tokens):
            if word in self.having:
                common[np.frombuffer(self.having[word], np.int64)] += 1
        lengths = np.fromiter(map(len, self.tokens), np.int64, len(self.tokens)) + len(tokens)
        for k in np.flatnonzero(2 * common > above * lengths).tolist():
            score = 2 * common_subsequence(tokens, self.tokens[k]) / int(lengths[k])
            if score > above:
                return Like(self.places[k], score)
        return None


def _numbered(tokens: Sequence[bytes]) -> list[tuple[bytes, int]]:
    """Every word with how often it came before, so that words in common are counted as often as both have them."""
    return [(word, k) for word, times in Counter(tokens).items() for k in range(times)]


def common_subsequence(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """The length of the longest common subsequence, one bit for each word of the first (Hyyrö 2004)."""
    where: dict[Hashable, int] = defaultdict(int)
    for k, word in enumerate(one):
        where[word] |= 1 << k
    every = (1 << len(one)) - 1
    row = every
    for word in other:
        matched = row & where.get(word, 0)
        row = ((row + matched) | (row - matched)) & every
    return len(one) - row.bit_count()
