"""Scorers that compare an answer with its siblings: the other answers that the same entry got to the same prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.kinds.scorer import Scorer, quantities_of, scorer
from pipeline.kinds.verifier import by_text, same
from pipeline.text.answers import plain_words
from pipeline.text.numbers import last_number

Normalise = Literal["none", "number", "text"]
READS = ("prompt_id", "entry", "answer", "verifier")
NORMAL: dict[str, Callable[[str], str]] = {
    "none": lambda text: text,
    "number": lambda text: str(last_number(text) or text),
    "text": plain_words,
}


@dataclass(frozen=True)
class Votes:
    """How the siblings of every answer voted. All arrays have one value per answer, [n]."""

    answered: np.ndarray
    votes: np.ndarray
    samples: np.ndarray
    majority: np.ndarray
    entropy: np.ndarray
    margin: np.ndarray
    distinct: np.ndarray

    def scored(self, score: np.ndarray) -> dict[str, pa.Array]:
        """A score for every answer that could be read, with all votes as its quantities."""
        return {
            "score": pa.array(score, mask=~self.answered),
            "quantities": quantities_of(
                votes=self.votes,
                samples=self.samples,
                majority=self.majority,
                entropy=self.entropy,
                margin=self.margin,
                distinct=self.distinct,
            ),
        }


@scorer(reads=READS, score="votes / samples", means="agreement")
def agreement(*, normalise: Normalise = "none") -> Scorer:
    """The share of an entry's answers to a prompt that say the same as this one; null if no answer could be read.

    Two answers say the same if the prompt's verifier holds them for equal, or if they are one text after `normalise`.
    Quantities, of which the other scores of this family are made: votes for this answer, samples, majority (1 for the
    answer with most votes, the first in alphabetic order of several), entropy in nats over the distinct answers,
    unread ones together being one, margin between the shares of the first and the second, distinct answers.

    Paper: Wang et al. 2023 (self-consistency), unweighted majority vote.
    Differs: every answer gets its own share, not only the winner.
    """

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        votes = count_votes(rows, NORMAL[normalise])
        return votes.scored(votes.votes / votes.samples)

    return score


@scorer(reads=READS, score="entropy")
def entropy(*, normalise: Normalise = "none") -> Scorer:
    """How divided an entry's answers to a prompt are: their entropy, in nats; null if this one could not be read.

    Paper: Wang et al. 2023 (self-consistency) for the votes; the entropy of them is the usual measure of doubt.
    Differs: answers that could not be read count together as one answer.
    """

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        votes = count_votes(rows, NORMAL[normalise])
        return votes.scored(votes.entropy)

    return score


@scorer(reads=READS, score="margin")
def margin(*, normalise: Normalise = "none") -> Scorer:
    """How clear the majority is: its share less that of the second answer; null if this one could not be read.

    Paper: Wang et al. 2023 (self-consistency) for the votes; margin sampling (Scheffer et al. 2001) for the measure.
    Differs: shares are of all samples, unread ones included.
    """

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        votes = count_votes(rows, NORMAL[normalise])
        return votes.scored(votes.margin)

    return score


def count_votes(rows: pa.Table, normal: Callable[[str], str]) -> Votes:
    """The votes among siblings. Only distinct texts are normalised: a real normaliser costs more than all counting."""
    asked = _codes(rows["prompt_id"])
    asked = asked * (len(asked) + 1) + _codes(rows["entry"])
    _, of_group, group = np.unique(asked, return_index=True, return_inverse=True)
    answer, forms = _answer_codes(rows["answer"], normal)
    if "verifier" in rows.column_names:
        answer = _as_judged(answer, forms, group, rows["verifier"].take(pa.array(of_group)).to_pylist())
    kinds = len(forms)

    # One entry per group and answer, in order of group, then of the answer's text; unread answers come last.
    entries, entry, counts = np.unique(group * (kinds + 1) + answer, return_inverse=True, return_counts=True)
    of = entries // (kinds + 1)
    read = entries % (kinds + 1) < kinds
    first = np.flatnonzero(np.r_[True, of[1:] != of[:-1]][: len(of)])
    if len(first) == 0:
        return Votes(np.zeros(0, bool), *(np.zeros(0) for _ in range(6)))

    samples = np.add.reduceat(counts, first)
    share = counts / samples[of]
    votes = np.where(read, counts, 0)
    # The most votes come first, then the text in alphabetic order, which is the order of the entries.
    ranked = np.lexsort((np.arange(len(entries)), -votes, of))
    top = ranked[first]
    second = np.where(np.append(first[1:], len(of)) - first > 1, ranked[np.minimum(first + 1, len(of) - 1)], -1)
    lead = votes[top] - np.where(second >= 0, votes[second], 0)
    won = np.zeros(len(entries), bool)
    won[top] = votes[top] > 0
    # Rounded, because the last bits of a logarithm depend on the processor; abs, because of -0.0.
    spread = np.abs(np.add.reduceat(-share * np.log(share), first).round(12))
    return Votes(
        answered=answer < kinds,
        votes=votes[entry],
        samples=samples[group],
        majority=won[entry],
        entropy=spread[group],
        margin=(lead / samples)[group],
        distinct=np.add.reduceat(read.astype(np.int64), first)[group],
    )


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """A number for every distinct text."""
    return pc.dictionary_encode(column).combine_chunks().indices.to_numpy().astype(np.int64)


def _answer_codes(column: pa.ChunkedArray, normal: Callable[[str], str]) -> tuple[np.ndarray, list[str]]:
    """For every answer the rank of its normal form among all normal forms, and these in order; an answer that could not
    be read has the rank after the last."""
    encoded = pc.dictionary_encode(column).combine_chunks()
    normals = [normal(text) for text in encoded.dictionary.to_pylist()]
    forms = sorted(set(normals))
    rank = {form: i for i, form in enumerate(forms)}
    by_code = np.array([rank[form] for form in normals] + [len(rank)], np.int64)
    return by_code[encoded.indices.fill_null(len(normals)).to_numpy()], forms


def _as_judged(answer: np.ndarray, forms: list[str], group: np.ndarray, verifiers: list[str | None]) -> np.ndarray:
    """The same ranks, but that an answer has the rank of the first of its siblings, in alphabetic order, that the
    verifier of their prompt holds for equal to it. `verifiers`: one per group."""
    if all(verifier is None or by_text(verifier) for verifier in verifiers):
        return answer
    entries, entry = np.unique(group * (len(forms) + 1) + answer, return_inverse=True)
    of, rank = np.divmod(entries, len(forms) + 1)
    judged = rank.copy()
    for siblings in np.split(np.arange(len(entries)), np.flatnonzero(np.diff(of)) + 1):
        verifier = verifiers[of[siblings[0]]] if len(siblings) > 1 else None
        if verifier is None or by_text(verifier):
            continue
        firsts: list[int] = []
        for i in siblings[rank[siblings] < len(forms)]:
            equal = (first for first in firsts if same(verifier, forms[rank[i]], forms[first]))
            judged[i] = next(equal, rank[i])
            if judged[i] == rank[i]:
                firsts.append(int(rank[i]))
    return judged[entry]
