"""Texts as comparable words, and the hashes of their word n-grams.

Hashes are made from content alone, so that they are the same on any machine and with any version of a library.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MIX = np.uint64(0xD6E8FEB86659FD93)


# Forms of one character that a keyboard, a typesetter or a wide font chooses, and characters that nobody sees.
FORMS = str.maketrans(
    {wide: chr(wide - 0xFEE0) for wide in range(0xFF01, 0xFF5F)}
    | dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u2032\u02bc"), "'")
    | dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb"), '"')
    | dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212"), "-")
    | dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"), None)
    | {0x2014: " - ", 0x2015: " - ", 0x2026: "...", 0x3000: " "}
)
# A character of a script that is written without spaces is a word here.
SPACELESS = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}])"


def plain(texts: pa.Array) -> pa.Array:
    """Texts without what does not make them another text: Unicode form, typographic form, case, white space."""
    if not pc.all(pc.string_is_ascii(texts)).as_py():
        texts = pc.utf8_normalize(texts, form="NFC")
        texts = pa.array(
            [t if t is None or t.isascii() else t.translate(FORMS) for t in texts.to_pylist()], pa.string()
        )
    # Up and then down: letters that meet in capitals, such as the two lower sigmas, meet here too.
    texts = pc.utf8_lower(pc.utf8_upper(texts))
    return pc.binary_join(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts)), " ")


def without_punctuation(texts: pa.Array) -> pa.Array:
    """Texts without punctuation; beside a sign of another script it parts words, as in writing without spaces."""
    return pc.replace_substring_regex(pc.replace_substring_regex(texts, r"[!-/:-@\[-`{-~]", ""), r"\p{P}", " ")


def words_of(texts: pa.Array) -> pa.ListArray:
    """The words of each text, some of which may be empty."""
    if not pc.all(pc.string_is_ascii(texts)).as_py():
        texts = pc.replace_substring_regex(texts, SPACELESS, r" \1 ")
    return pc.utf8_split_whitespace(texts)


@dataclass(frozen=True)
class Grams:
    """The M word n-grams of several texts, in order of text and place.

    `hashes` [M]; `texts` [M] is the position of the text it is from; `starts` [M] is its first word in `words`, which
    holds the words of all texts one after the other, and `owners` the text that each is from.
    """

    n: int
    words: pa.DictionaryArray
    hashes: np.ndarray
    texts: np.ndarray
    starts: np.ndarray
    owners: np.ndarray

    def spelled(self, gram: int) -> str:
        """The words of an n-gram."""
        return " ".join(self.words[int(self.starts[gram]) + k].as_py() for k in range(self.n))


def ngrams(texts: pa.Array, n: int) -> Grams:
    """All word n-grams; a text of fewer than n words has none."""
    lists = words_of(texts)
    words = pc.list_flatten(lists)
    owner = pc.list_parent_indices(lists).to_numpy()
    filled = pc.not_equal(words, "")
    if not pc.all(filled).as_py():
        owner = owner[filled.to_numpy(zero_copy_only=False)]
        words = words.filter(filled)
    words = words.dictionary_encode()
    by_code = np.fromiter(map(_word_hash, words.dictionary.to_pylist()), np.uint64, len(words.dictionary))
    hashes = by_code[words.indices.to_numpy()]
    count = max(len(hashes) - n + 1, 0)
    rolled = np.zeros(count, np.uint64)
    for k in range(n):
        rolled *= MIX
        rolled += hashes[k : k + count]
    rolled ^= rolled >> np.uint64(32)
    rolled *= MIX
    rolled ^= rolled >> np.uint64(29)
    starts = np.flatnonzero(owner[:count] == owner[n - 1 :])
    return Grams(n, words, rolled[starts], owner[starts], starts, owner)


@functools.lru_cache(1 << 20)
def _word_hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
