"""Trials of rules: copies in a pool, and of a benchmark's items."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.tables import ids
from pipeline.text.canaries import COPIES
from pipeline.text.items import texts_from

TEMPLATE = "A shop sells {a} apples for {b} coins each and {c} pears for {d} coins each. How many coins is that in all?"


@trial(
    "rule duplicates.minhash",
    "rule duplicates.exact",
    after="MinHash",
    control="exact copies alone",
    measure="F1 of what is dropped",
)
def minhash(seed: int) -> FIGURES:
    """Copies of which a word or two were changed are found, and texts on the same matter stay."""
    rng = ids.generator(seed, "minhash")
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(300)]
    texts = [list(rng.choice(words, 40)) for _ in range(400)]

    def changed(text: list[str], count: int) -> str:
        text = list(text)
        for at in rng.choice(len(text), count, replace=False):
            text[at] = str(rng.choice(words))
        return " ".join(text)

    copies = [" ".join(text).upper() for text in texts[:30]] + [
        changed(text, int(rng.integers(1, 4))) for text in texts[30:90]
    ]
    others = [changed(text, 20) for text in texts[90:150]]
    every = [" ".join(text) for text in texts] + copies + others
    given = texts_from([f"{i:04d}" for i in range(len(every))], pa.array(every))
    nothing = texts_from([], pa.array([], pa.string()))
    planted = set(range(len(texts), len(texts) + len(copies)))

    def f1(name: str) -> float:
        found = set(built("rule", name)(given, nothing))
        return 2 * len(found & planted) / (len(found) + len(planted))

    return f1("duplicates.minhash"), f1("duplicates.exact")


def decided(seed: int, name: str, **arguments: object) -> float:
    """Balanced accuracy of a rule: leaks of benchmark items, in other forms, and other instances of their template."""
    rng = ids.generator(seed, "decontamination")

    def instances(count: int) -> list[str]:
        return [
            TEMPLATE.format(**dict(zip("abcd", map(int, row), strict=True))) for row in rng.integers(2, 99, (count, 4))
        ]

    items, others = instances(60), instances(200)
    kinds = rng.choice(list(COPIES), len(items))
    leaks = [str(rng.choice(COPIES[kind](item))) for kind, item in zip(kinds, items, strict=True)]
    every = others + leaks
    benchmark = texts_from([f"b{i:03d}" for i in range(len(items))], pa.array(items))
    found = built("rule", name, **arguments)(
        texts_from([f"{i:04d}" for i in range(len(every))], pa.array(every)), benchmark
    )
    flagged = np.isin(np.arange(len(every)), list(found))
    return float((flagged[len(others) :].mean() + (~flagged[: len(others)]).mean()) / 2)


@trial(
    "rule contamination.containment",
    "rule contamination.ngram",
    after="containment",
    control="a shared run of 8 words",
    measure="balanced accuracy of what is dropped",
)
def containment(seed: int) -> FIGURES:
    """Leaked items of a template are found by their words and numbers, and its other instances stay."""
    return decided(seed, "contamination.containment"), decided(seed, "contamination.ngram", words=8)


@trial(
    "rule contamination.key",
    "rule contamination.ngram",
    after="canonical keys",
    control="a shared run of 8 words",
    measure="balanced accuracy of what is dropped",
)
def key(seed: int) -> FIGURES:
    """Leaked items of a template are found by their wording, and its other instances stay."""
    return decided(seed, "contamination.key"), decided(seed, "contamination.ngram", words=8)
