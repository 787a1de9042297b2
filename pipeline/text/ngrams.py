"""Texts as comparable words, and the hashes of their word n-grams.

Hashes are made from content alone, so that they are the same on any machine and with any version of a library.
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# What is looked at together, so that it stays in the processor's cache.
BLOCK_BYTES = 1 << 19
MIX = np.uint64(0xD6E8FEB86659FD93)
# A text's hash is the polynomial of its bytes at this point, modulo 2**64.
POINT = 0x9E3779B97F4A7C15

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
SIGN = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
WORD = re.compile(rf"[{SIGN}]|[^\s{SIGN}]+")
SPACE, GONE = 32, 255
Make = Callable[[pa.Array], pa.Array]


def _table(gone: str = "") -> bytes:
    """What becomes of every byte of an ASCII text."""
    letters = [SPACE if chr(code).isspace() else ord(chr(code).lower()) for code in range(128)]
    return bytes(GONE if chr(code) in gone else letter for code, letter in enumerate(letters)).ljust(256)


LOWER, BARE = _table(), _table(string.punctuation)


def plain(texts: pa.Array) -> pa.Array:
    """Texts without what does not make them another text: Unicode form, typographic form, case, white space."""
    return _by_script(texts, lambda ascii: _rewritten(ascii, LOWER), _plain)


def _plain(texts: pa.Array) -> pa.Array:
    texts = pc.utf8_normalize(texts, form="NFC")
    texts = pa.array([text.translate(FORMS) for text in texts.to_pylist()], pa.string())
    # Up and then down: letters that meet in capitals, such as the two lower sigmas, meet here too.
    texts = pc.utf8_lower(pc.utf8_upper(texts))
    return pc.binary_join(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts)), " ")


def without_punctuation(texts: pa.Array) -> pa.Array:
    """Plain texts without punctuation; beside a sign of another script it parts words, as in writing without spaces."""

    def bare(texts: pa.Array) -> pa.Array:
        return pc.replace_substring_regex(pc.replace_substring_regex(texts, r"[!-/:-@\[-`{-~]", ""), r"\p{P}", " ")

    return _by_script(texts, lambda ascii: _rewritten(ascii, BARE), bare)


def _by_script(texts: pa.Array, ascii: Make, other: Make) -> pa.Array:
    """Texts of ASCII alone made by one function, and all others by another."""
    easy = pc.string_is_ascii(texts)
    if pc.all(easy).as_py():
        return ascii(texts)
    order = np.argsort(~easy.to_numpy(zero_copy_only=False), kind="stable")
    made = pa.concat_arrays([ascii(texts.filter(easy)), other(texts.filter(pc.invert(easy)))])
    return made.take(pa.array(np.argsort(order)))


def _rewritten(texts: pa.Array, table: bytes) -> pa.Array:
    data, offsets = bytes_of(texts)
    data = np.frombuffer(data.tobytes().translate(table), np.uint8)
    if (gone := data == GONE).any():
        data, offsets = _cut(data, offsets, ~gone)
    return text_of(*squeezed(data, offsets))


def bytes_of(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of all texts, one after the other, and where each begins, with the end of the last."""
    if len(texts) == 0:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    whole = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return whole[ends[0] : ends[-1]], ends - ends[0]


def text_of(data: np.ndarray, offsets: np.ndarray) -> pa.Array:
    """The texts of these bytes."""
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data))


def squeezed(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texts with one space between words, and none around them."""
    filled = offsets[1:] > offsets[:-1]
    first, last = offsets[:-1][filled], offsets[1:][filled] - 1
    if b"  " not in data.tobytes() and not (data[first] == SPACE).any() and not (data[last] == SPACE).any():
        return data, offsets
    space = data == SPACE
    data, offsets = _cut(data, offsets, ~(space & _after(space, offsets)))
    last = offsets[1:][offsets[1:] > offsets[:-1]] - 1
    kept = np.ones(len(data), bool)
    kept[last] = data[last] != SPACE
    return _cut(data, offsets, kept)


def _after(flags: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Whether a byte is its text's first, or the one before it has the flag."""
    after = np.empty(len(flags) + 1, bool)
    after[1:] = flags
    after[offsets] = True
    return after[:-1]


def _cut(data: np.ndarray, offsets: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bytes that are kept, and where the texts begin then."""
    gone = np.flatnonzero(~kept)
    return data[kept], offsets - np.searchsorted(gone, offsets)


def blocks(texts: pa.Array) -> Iterator[tuple[int, pa.Array]]:
    """Texts in their order, some at a time, with the position of the first."""
    for begin, end in _blocks(bytes_of(texts)[1]):
        yield begin, texts[begin:end]


def _blocks(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Texts from one position to another that have few bytes together, or are one."""
    begin = 0
    while begin < len(offsets) - 1:
        end = max(int(np.searchsorted(offsets, offsets[begin] + BLOCK_BYTES, "right")) - 1, begin + 1)
        yield begin, end
        begin = end


@dataclass(frozen=True)
class Words:
    """The words of several plain texts.

    `data` [B] is their bytes; `starts` and `ends` [W] are where each word stands in it, `owners` [W] the position of
    the text that it is from, and `offsets` where each text begins.
    """

    data: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    owners: np.ndarray
    offsets: np.ndarray

    def counts(self) -> np.ndarray:
        """How many words each text has."""
        return np.bincount(self.owners, minlength=len(self.offsets) - 1)

    def without(self, gone: np.ndarray) -> pa.Array:
        """The texts without some of their words, [W]."""
        wide = np.diff(np.r_[self.starts, len(self.data)])
        return text_of(*squeezed(*_cut(self.data, self.offsets, np.repeat(~gone, wide))))


def words_of(texts: pa.Array) -> Words:
    """The words of plain texts."""
    texts = _by_script(texts, lambda ascii: ascii, lambda other: pc.replace_substring_regex(other, SPACELESS, r" \1 "))
    data, offsets = squeezed(*bytes_of(texts))
    space = data == SPACE
    starts = np.flatnonzero(_after(space, offsets))
    # Between two words of a text stands one byte, between those of two texts none.
    first = np.searchsorted(starts, offsets)
    ends = np.empty(len(starts), np.int64)
    ends[:-1] = starts[1:] - 1
    ends[first[1:][first[1:] > first[:-1]] - 1] = offsets[1:][first[1:] > first[:-1]]
    return Words(data, starts, ends, np.repeat(np.arange(len(texts)), np.diff(first)), offsets)


@dataclass(frozen=True)
class Grams:
    """The M word n-grams of several texts, in order of text and place.

    `hashes` [M]; `texts` [M] is the position of the text that it is from; `first` [M] is its first word.
    """

    n: int
    words: Words
    hashes: np.ndarray
    texts: np.ndarray
    first: np.ndarray

    def spelled(self, gram: int) -> str:
        """The words of an n-gram."""
        first = self.first[gram]
        return self.words.data[self.words.starts[first] : self.words.ends[first + self.n - 1]].tobytes().decode()


def ngrams(texts: pa.Array, n: int) -> Grams:
    """All word n-grams of plain texts; a text of fewer than n words has none.

    An n-gram is the bytes from its first word to its last, and its hash is found from those of the text's beginnings.
    """
    words = words_of(texts)
    count = max(len(words.starts) - n + 1, 0)
    first = np.flatnonzero(words.owners[:count] == words.owners[n - 1 :])
    starts, ends = words.starts.take(first), words.ends.take(first + (n - 1))
    hashes = np.empty(len(first), np.uint64)
    for begin, end in _blocks(words.offsets):
        low, high = words.offsets[begin], words.offsets[end]
        here = slice(*np.searchsorted(starts, (low, high)))
        powers, inverse = _powers(int(max(high - low, BLOCK_BYTES) - 1).bit_length())
        until = np.empty(high - low + 1, np.uint64)
        until[0] = 0
        np.add(words.data[low:high], np.uint64(1), out=until[1:])
        until[1:] *= powers[: high - low]
        np.cumsum(until, out=until)
        at = starts[here] - low
        hashes[here] = (until.take(ends[here] - low) - until.take(at)) * inverse.take(at)
    hashes ^= hashes >> np.uint64(32)
    hashes *= MIX
    hashes ^= hashes >> np.uint64(29)
    return Grams(n, words, hashes, words.owners.take(first), first)


@functools.lru_cache(2)
def _powers(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The powers of POINT, and those of its inverse, modulo 2**64."""
    points = (POINT, pow(POINT, -1, 2**64))
    powers, inverse = (np.cumprod(np.r_[np.uint64(1), np.full((1 << bits) - 1, p, np.uint64)]) for p in points)
    return powers, inverse


def split(text: str) -> list[str]:
    """The words of one text as they stand; a sign of a script without spaces is a word."""
    return text.split() if text.isascii() else WORD.findall(text)
