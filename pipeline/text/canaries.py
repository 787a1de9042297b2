"""Canaries: copies of a benchmark's items that are planted, to see that rules find them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.kinds.rule import Texts
from pipeline.text.contamination import Template
from pipeline.text.items import texts_from
from pipeline.text.ngrams import without_punctuation, words_of
from pipeline.text.numerals import in_words, with_digits

# Items of which copies are planted.
ITEMS = 50
# A copy that is more than the item in another form needs an item of this many words of its own.
LEAST = 8
# What a typesetter makes of what a keyboard writes.
TYPESET = str.maketrans({"'": "\u2019", '"': "\u201d", "-": "\u2013", "!": "\uff01", "?": "\uff1f", ",": "\uff0c"})
# Letters of a wide font, and the digits of Arabic.
SCRIPT = str.maketrans(
    {code: code + 0xFEE0 for code in range(ord("A"), ord("z") + 1) if chr(code).isalpha()}
    | {ord("0") + n: 0x0660 + n for n in range(10)}
)


# A number by itself; beside another one its words would be read with the other's.
ALONE = re.compile(r"(?<![^\s(])(?<!\d\s)(0|[1-9]\d{0,5})(?=[\s?!)]|$)(?!\s\d)")
AROUND = ("Here is one more, quoted whole. {} And that is all of it.", "\uff08{}\uff09")
# Kind of copy -> the copies of an item. The first two may be of any item, with the arrays beside it.
COPIES: dict[str, Callable[[str], list[str]]] = {
    "verbatim": lambda text: [text, text.upper(), "  " + text.replace(" ", " \n ") + " "],
    "typeset": lambda text: [text.translate(TYPESET)],
    "inside": lambda text: [around.format(text.title()).translate(TYPESET) for around in AROUND],
    "renumbered": lambda text: [copy] if (copy := ALONE.sub(lambda n: in_words(int(n[0])), text)) != text else [],
    "rescripted": lambda text: [copy] if (copy := text.translate(SCRIPT)) != text else [],
}
WHOLE = ("verbatim", "typeset")


@dataclass(frozen=True)
class Planted:
    """Copies of one kind, and how many words of its own the item of each has, [n]."""

    texts: Texts
    own: np.ndarray


def planted(benchmark: Texts) -> dict[str, Planted]:
    """Copies of every kind of the benchmark's first items."""
    own = own_words(benchmark)
    found = {}
    for kind, copies in COPIES.items():
        texts: list[str] = []
        of: list[int] = []
        for i, text in enumerate(benchmark.raw[:ITEMS].to_pylist()):
            if kind in WHOLE or (own[i] >= LEAST and not benchmark.inputs[i].is_valid):
                made = copies(text)
                texts, of = texts + made, of + [i] * len(made)
        # In the order of ids, as all texts are.
        names, inputs = [f"canary {i:04d}" for i in range(len(texts))], benchmark.inputs.take(pa.array(of, pa.int64()))
        found[kind] = Planted(texts_from(names, pa.array(texts, pa.string()), inputs=inputs), own[of])
    return found


def own_words(benchmark: Texts) -> np.ndarray:
    """How many words of its own each item has, whatever notation its numbers are in, [n]."""
    forms = (benchmark.words, without_punctuation(with_digits(benchmark.plain)))
    return np.minimum(*(words_of(Template(form).without(form)).counts() for form in forms))
