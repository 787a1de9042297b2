"""Rules that hold a pool's texts against each other: of those that are one, the first stays."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from pipeline.kinds.rule import Rule, Texts, each, rule
from pipeline.text.duplicates import near_duplicates
from pipeline.text.items import item
from pipeline.text.novelty import repeats

Share = Annotated[float, Field(gt=0, le=1)]


@rule(drops="exact", sees="pool")
def exact() -> Rule:
    """Texts that differ from one with a lower id in case, spacing and typographic form only, and are about the same
    arrays.

    Paper: none.
    Differs: nothing.
    """

    def judge(texts: Texts, benchmark: Texts) -> dict[int, str]:
        # Of every text a number is held; those that share theirs are looked at again.
        asked = zip(texts.wordings(), each(texts.systems), strict=True)
        keys = np.fromiter(map(hash, asked), np.int64, len(texts))
        _, of, times = np.unique(keys, return_inverse=True, return_counts=True)
        first: dict[object, int] = {}
        found = {}
        for i in np.flatnonzero(times[of] > 1).tolist():
            wording, system = (texts.plain[i].as_py(), texts.inputs[i].as_py()), texts.systems[i].as_py()
            kept = first.setdefault((wording, system), i)
            if kept != i:
                found[i] = f"the same {what(wording)} as {texts.ids[kept]}"
        return found

    return judge


def what(asked: tuple[str, str | None]) -> str:
    """What two prompts of one wording share, in words."""
    text, inputs = asked
    return "text" if inputs is None else "text and inputs" if text else "inputs"


@rule(drops="near", sees="pool")
def minhash(*, threshold: Share = 0.8, words: PositiveInt = 3) -> Rule:
    """Texts whose runs of `words` words are nearly those of another that asks for the same: Jaccard at least
    `threshold`.

    Pairs are found by MinHash and bands, and every one is verified by its exact similarity. What asks for the same has
    the same numbers, reference, system turn and arrays, so that a template filled otherwise stays.

    Paper: Broder 1997 (MinHash); Leskovec et al. 2014, chapter 3 (bands).
    Differs: bands are chosen for recall, since a false candidate is refused; texts that ask for other items are none.
    """

    def judge(texts: Texts, benchmark: Texts) -> dict[int, str]:
        twins = near_duplicates(texts.plain, item(texts), threshold=threshold, words=words)
        return {
            i: f"Jaccard {twin.similarity:.3f} with {texts.ids[twin.like]}; {texts.ids[twin.kept]} is kept"
            for i, twin in twins.items()
        }

    return judge


@rule(drops="rouge", sees="pool")
def rouge(*, above: Share = 0.7) -> Rule:
    """Texts whose ROUGE-L with one that stays, and that asks for the same, is above `above`; taken in the order of ids.

    It holds every text against every other that asks for the same: thousands of texts, not millions.

    Paper: Wang et al. 2023, Self-Instruct (arXiv 2212.10560), section 2.2, which keeps what is below 0.7; Lin 2004
    (ROUGE-L, its F with equal weights).
    Differs: texts that ask for other items are not held against each other, so that templates stay.
    """

    def judge(texts: Texts, benchmark: Texts) -> dict[int, str]:
        found = repeats(texts.plain, item(texts), above=above)
        return {i: f"ROUGE-L {like.score:.3f} with {texts.ids[like.kept]}" for i, like in found.items()}

    return judge
