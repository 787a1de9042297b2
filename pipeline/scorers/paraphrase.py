"""Scorers that look for answers which say the same in other words, among those that one entry got to one prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveFloat

from pipeline.kinds.scorer import Scorer, quantities_of, scorer, siblings, together
from pipeline.kinds.verifier import same
from pipeline.text.answers import NUMBER, plain_words
from pipeline.text.novelty import common_subsequence

READS = ("response_id", "prompt_id", "entry", "verifier", "answer", "content")


@scorer(reads=READS, score="partners")
def pairs(
    *, shortest: PositiveFloat = 0.8, longest: PositiveFloat = 1.5, overlap: Annotated[float, Field(ge=0, le=1)] = 0.75
) -> Scorer:
    """How many siblings an answer can be paired with: they say the same in other words; null if it could not be read.

    A partner's short answer is equal by the prompt's verifier, and its text has the same numbers, from `shortest` to
    `longest` times the characters, and a ROUGE-L of at most `overlap`. Quantities: partners, siblings, and nearest and
    furthest, the highest and lowest ROUGE-L among partners (0 without one). `detail`: the partners' ids, the least
    alike first.

    Paper: Jung et al. 2024 (Impossible Distillation, arXiv 2305.16635), the filters of pairs.
    Differs: the verifier stands for entailment both ways; numbers are compared both ways, which the released code does
    in one; no distance of syntax trees.
    """

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        found = {"partners": np.zeros(len(rows)), "siblings": np.zeros(len(rows))}
        found |= {"nearest": np.zeros(len(rows)), "furthest": np.zeros(len(rows))}
        details: list[str | None] = [None] * len(rows)
        for said in groups(rows):
            equal = said.equal()
            for i, row in enumerate(said.rows):
                alike = sorted(
                    (rouge, said.ids[j])
                    for j in np.flatnonzero(equal[i]).tolist()
                    if i != j
                    and shortest <= len(said.texts[j]) / max(len(said.texts[i]), 1) <= longest
                    and numbers(said.texts[i]) == numbers(said.texts[j])
                    and (rouge := rouge_l(said.texts[i], said.texts[j])) <= overlap
                )
                found["partners"][row], found["siblings"][row] = len(alike), len(said.rows) - 1
                if alike:
                    found["furthest"][row], found["nearest"][row] = alike[0][0], alike[-1][0]
                    details[row] = " ".join(name for _, name in alike)
        return {
            "score": pa.array(found["partners"], mask=rows["answer"].is_null().to_numpy()),
            "quantities": quantities_of(**found),
            "detail": pa.array(details, pa.string()),
        }

    return score


@scorer(reads=READS, score="kept")
def component() -> Scorer:
    """1 for one answer of every component of those that say the same, 0 for the others; null if it could not be read.

    Two siblings are joined where the verifier holds their short answers for equal; a component is all that are joined
    by way of others. The one with most equals stands for it; of several, the first by id. Quantities: kept, component
    (by the first id in it, from 0), size, equals.

    Paper: Jung et al. 2024 (Impossible Distillation, arXiv 2305.16635), the filter of diversity.
    Differs: the one with most equals, in place of the largest entailment (the released code takes the lowest).
    """

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        names = ("kept", "component", "size", "equals")
        found = {name: np.zeros(len(rows)) for name in names}
        for said in groups(rows):
            equal = said.equal()
            reached = equal.copy()
            while (further := reached @ reached).sum() > reached.sum():
                reached = further
            _, first, number = np.unique(reached.argmax(1), return_index=True, return_inverse=True)
            equals = equal.sum(1) - 1
            for one in range(len(first)):
                members = np.flatnonzero(number == one)
                found["kept"][said.rows[members[np.argmax(equals[members])]]] = 1
                found["size"][said.rows[members]] = len(members)
            found["component"][said.rows], found["equals"][said.rows] = number, equals
        return {
            "score": pa.array(found["kept"], mask=rows["answer"].is_null().to_numpy()),
            "quantities": quantities_of(**found),
        }

    return score


@dataclass(frozen=True)
class Said:
    """The answers of siblings that could be read, in the order of their ids."""

    rows: np.ndarray
    ids: list[str]
    answers: list[str]
    texts: list[str]
    verifier: str | None

    def equal(self) -> np.ndarray:
        """Whether the short answers are equal, in either order, bool [n, n]."""
        forms = sorted(set(self.answers))
        table = np.eye(len(forms), dtype=bool)
        for i, one in enumerate(forms):
            for j, other in enumerate(forms[:i]):
                table[i, j] = table[j, i] = self._same(other, one) or self._same(one, other)
        number = {form: i for i, form in enumerate(forms)}
        at = [number[answer] for answer in self.answers]
        return table[np.ix_(at, at)]

    def _same(self, one: str, other: str) -> bool:
        return plain_words(one) == plain_words(other) if self.verifier is None else same(self.verifier, one, other)


def groups(rows: pa.Table) -> Iterator[Said]:
    """Siblings, together."""
    columns = {name: rows[name].to_pylist() for name in ("response_id", "verifier", "answer", "content")}
    for members in together(siblings(rows)):
        some = [i for i in members.tolist() if columns["answer"][i] is not None]
        some.sort(key=columns["response_id"].__getitem__)
        if some:
            of = {name: [values[i] for i in some] for name, values in columns.items()}
            texts = [content or "" for content in of["content"]]
            yield Said(np.array(some), of["response_id"], of["answer"], texts, of["verifier"][0])


def numbers(text: str) -> list[str]:
    """The numbers that stand in a text, in the order of their digits."""
    return sorted(NUMBER.findall(text))


def rouge_l(one: str, other: str) -> float:
    """The F-measure of the longest run of words, with gaps, that two texts share; 0 if one has none."""
    a, b = plain_words(one).split(), plain_words(other).split()
    return 2 * common_subsequence(a, b) / (len(a) + len(b)) if a and b else 0.0
