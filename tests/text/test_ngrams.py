"""Texts as words, and their n-grams: against the definition, one text at a time."""

from __future__ import annotations

import random
import unicodedata

import pyarrow as pa
import pytest

from pipeline.text import ngrams as module
from pipeline.text.ngrams import FORMS, blocks, ngrams, plain, split, without_punctuation, words_of

SIGNS = [chr(code) for code in range(128)] + list("  \t\n") * 8 + list("abcABC") * 5
# Made once: on another machine, or with another version of a library, it must be the same.
EXPECTED = 5479031898277531995
OTHERS = list("\u00e9\u03a3\u03c3\u03c2\u5c0f\u660e\u3042\u0e2a\u200b\u3000\u2014\u2019\u00a0\uff0c\uff21\uff11")


def texts(seed: int, signs: list[str]) -> pa.Array:
    draw = random.Random(seed)
    sizes = (draw.choice([0, 0, 1, 2, 5, 40]) for _ in range(draw.choice([0, 1, 3, 30])))
    return pa.array(["".join(draw.choices(signs, k=size)) for size in sizes], pa.string())


def small(sign: str) -> str:
    return sign.upper().lower()


@pytest.mark.parametrize("signs", [SIGNS, SIGNS + OTHERS * 3], ids=["ascii", "any"])
def test_words_and_runs_are_those_of_the_definition(signs: list[str]) -> None:
    for seed in range(100):
        given = texts(seed, signs)
        made = plain(given)
        assert made.to_pylist() == [
            " ".join("".join(map(small, unicodedata.normalize("NFC", text).translate(FORMS))).split())
            for text in given.to_pylist()
        ]
        bare = without_punctuation(made)
        lists = [split(text) for text in bare.to_pylist()]
        words = words_of(bare)
        assert words.counts().tolist() == [len(words) for words in lists]
        for n in (1, 3):
            grams = ngrams(bare, n)
            runs = [(i, " ".join(of[k : k + n])) for i, of in enumerate(lists) for k in range(len(of) - n + 1)]
            assert [(int(text), grams.spelled(k)) for k, text in enumerate(grams.texts)] == runs
            hashes = dict(zip(grams.hashes.tolist(), (run for _, run in runs), strict=True))
            assert len(hashes) == len({run for _, run in runs})


def test_hashes_are_of_the_words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of where they stand, nor of what is looked at together, nor of the machine."""
    given = pa.array(["one two three", "zero one two three", "x" * 90 + " one two three"])
    assert ngrams(given, 3).hashes.tolist().count(EXPECTED) == 3
    monkeypatch.setattr(module, "BLOCK_BYTES", 16)
    assert [begin for begin, _ in blocks(given)] == [0, 1, 2]
    assert ngrams(given, 3).hashes.tolist().count(EXPECTED) == 3


def test_words_can_be_left_out() -> None:
    words = words_of(pa.array(["a bb ccc", "", "a"]))
    gone = [word == "a" for word in ("a", "bb", "ccc", "a")]
    assert words.without(pa.array(gone).to_numpy(zero_copy_only=False)).to_pylist() == ["bb ccc", "", ""]
