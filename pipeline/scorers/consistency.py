"""Scorers that compare an answer with its siblings: the other answers that the same entry got to the same prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contracts import whole
from pipeline.kinds.scorer import Scorer, quantities_of, scorer, siblings, together
from pipeline.kinds.verifier import by_text, same
from pipeline.text.answers import plain_words
from pipeline.text.numbers import last_plain

Normalise = Literal["none", "number", "text"]
READS = ("prompt_id", "entry", "answer", "verifier")
NORMAL: dict[str, Callable[[str], str]] = {
    "none": lambda text: text,
    "number": lambda text: last_plain(text) or text,
    "text": plain_words,
}


@dataclass(frozen=True)
class Ballots:
    """Who said the same. An entry is what some siblings said alike; entries are in the order of their siblings, then of
    their text, unread answers last."""

    entry: np.ndarray  # [n] the entry of every answer
    of: np.ndarray  # [entries] the number of its siblings
    read: np.ndarray  # [entries] whether it could be read
    counts: np.ndarray  # [entries] answers
    first: np.ndarray  # [siblings] their first entry


@dataclass(frozen=True)
class Votes:
    """How siblings voted. All arrays have one value per entry of the ballots."""

    ballots: Ballots
    votes: np.ndarray
    samples: np.ndarray
    majority: np.ndarray
    entropy: np.ndarray
    margin: np.ndarray
    distinct: np.ndarray

    def scored(self, score: np.ndarray) -> dict[str, pa.Array]:
        """The score of their entry for all answers that could be read, with all votes as their quantities."""
        entry, read = self.ballots.entry, self.ballots.read
        return {
            "score": pa.array(score[entry], mask=~read[entry]),
            "quantities": quantities_of(
                entry,
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

    Two answers say the same if they are one text after `normalise`, or if the prompt's verifier holds them for equal:
    in alphabetic order, a text joins the first that stands for a class and equals it, or else stands for a new one. So
    classes are the same in any order of the answers, also where a verifier holds a for b and b for c, but not a for c.
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


@scorer(reads=READS, score="class")
def classes(*, normalise: Normalise = "none") -> Scorer:
    """The number of what an answer says among its siblings, from 0 in alphabetic order; null if it could not be read.

    For votes that are weighted by any other score: in a rule, `trusted(critic.score, classes.score)` is the share of an
    answer's class in all that a scorer `critic` gave to its siblings. Quantities: class, votes, samples.

    Paper: Li et al. 2023 (DiVeRSe, arXiv 2206.02336), the voting verifier.
    Differs: the verifier is any score that is not negative, and the sum is a macro, so that another opinion or a
    threshold on it counts nothing again.
    """

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        cast = ballots(rows, NORMAL[normalise])
        number = (np.arange(len(cast.of)) - cast.first[cast.of]).astype(np.float64)
        votes, samples = np.where(cast.read, cast.counts, 0), np.bincount(cast.of, cast.counts)[cast.of]
        return {
            "score": pa.array(number[cast.entry], mask=~cast.read[cast.entry]),
            "quantities": quantities_of(cast.entry, **{"class": number}, votes=votes, samples=samples),
        }

    return score


@scorer(reads=(*READS, "logprobs"), score="weight / total")
def likely(*, normalise: Normalise = "none", by_token: bool = True) -> Scorer:
    """The share of an answer's class in the probability that the model gave to its samples; null if it could not be
    read, or has no log-probabilities.

    A sample's weight is its probability, `by_token` the geometric mean of its tokens'. A sample that has none, or one
    that is no finite number, has no vote. Quantities: weight, total, own (relative to the likeliest sibling), samples,
    weighted (those with a vote).

    Paper: Wang et al. 2023 (self-consistency), equation 1 and the weighted sums of table 1, normalised and not.
    Differs: unread samples keep their weight in the total, as in `consistency.agreement`.
    """

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        cast = ballots(rows, NORMAL[normalise])
        group, log = cast.of[cast.entry], log_probability(rows["logprobs"], by_token)
        known = np.isfinite(log)
        top = np.full(len(cast.first), -np.inf)
        np.maximum.at(top, group[known], log[known])
        # Rounded, because the last bits of an exponential depend on the processor.
        own = np.where(known, np.exp(np.where(known, log - top[group], 0)).round(12), 0)
        weight, total = sums(own, cast.entry), sums(own, group)
        return {
            "score": pa.array(weight / np.where(total > 0, total, 1), mask=~known | ~cast.read[cast.entry]),
            "quantities": quantities_of(
                weight=weight,
                total=total,
                own=own,
                samples=np.bincount(group)[group],
                weighted=np.bincount(group, known)[group],
            ),
        }

    return score


@scorer(reads=READS, score="support > contradicting")
def uncontradicted(*, normalise: Normalise = "none") -> Scorer:
    """1 if more siblings say the same as an answer, itself included, than say something else, 0 if not; null if it
    could not be read. Who could not be read says nothing. Quantities: support, contradicting.

    Paper: Howard et al. 2024 (NeuroComparatives, arXiv 2305.04978), the vote of contradictions by support of clusters.
    Differs: answers that the verifier holds for equal are a cluster and entail each other, and any other two contradict
    each other, where the paper clusters embeddings and asks a model of entailment.
    """

    def score(rows: pa.Table) -> dict[str, pa.Array]:
        cast = ballots(rows, NORMAL[normalise])
        support = np.where(cast.read, cast.counts, 0)
        contradicting = np.bincount(cast.of, support)[cast.of] - support
        kept = (support > contradicting).astype(np.float64)
        return {
            "score": pa.array(kept[cast.entry], mask=~cast.read[cast.entry]),
            "quantities": quantities_of(cast.entry, support=support, contradicting=contradicting),
        }

    return score


def log_probability(column: pa.ChunkedArray, by_token: bool) -> np.ndarray:
    """The log-probability of every answer, or its mean by token, [n]; NaN where there is none."""
    lists = whole(column)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    found = np.full(len(lengths), np.nan)
    if len(values):
        some = lengths > 0
        starts = np.cumsum(lengths[some]) - lengths[some]
        found[some] = np.add.reduceat(values, starts) / (lengths[some] if by_token else 1)
    return found


def sums(weights: np.ndarray, of: np.ndarray) -> np.ndarray:
    """For every answer the sum of the weights with its number `of`, [n]; from the smallest, so that no order counts."""
    order = np.lexsort((weights, of))
    starts = np.flatnonzero(np.diff(of[order], prepend=-1))
    found = np.zeros(int(of.max(initial=-1)) + 1)
    if len(starts):
        found[of[order][starts]] = np.add.reduceat(weights[order], starts)
    return found[of]


def ballots(rows: pa.Table, normal: Callable[[str], str]) -> Ballots:
    """What siblings said. Only distinct texts are normalised: a real normaliser costs more than all counting."""
    group = siblings(rows)
    answer, forms = _answer_codes(rows["answer"], normal)
    kinds = len(forms)
    if "verifier" in rows.column_names:
        of_group = np.unique(group, return_index=True)[1]
        answer = _as_judged(answer, forms, group, rows["verifier"].take(pa.array(of_group)).to_pylist())
    of_all = group.astype(np.int64) * (kinds + 1) + answer
    entries, entry, counts = np.unique(of_all, return_inverse=True, return_counts=True)
    of, rank = np.divmod(entries, kinds + 1)
    return Ballots(entry, of, rank < kinds, counts, np.flatnonzero(np.diff(of, prepend=-1)))


def count_votes(rows: pa.Table, normal: Callable[[str], str]) -> Votes:
    """The votes among siblings."""
    cast = ballots(rows, normal)
    of, first = cast.of, cast.first
    if len(first) == 0:
        return Votes(cast, *(np.zeros(0) for _ in range(6)))

    samples = np.add.reduceat(cast.counts, first)
    share = cast.counts / samples[of]
    votes = np.where(cast.read, cast.counts, 0)
    # The most votes come first, then the text in alphabetic order, which is the order of the entries.
    ranked = np.lexsort((np.arange(len(of)), -votes, of))
    top = ranked[first]
    second = np.where(np.append(first[1:], len(of)) - first > 1, ranked[np.minimum(first + 1, len(of) - 1)], -1)
    lead = votes[top] - np.where(second >= 0, votes[second], 0)
    won = np.zeros(len(of), bool)
    won[top] = votes[top] > 0
    # Rounded, because the last bits of a logarithm depend on the processor; abs, because of -0.0.
    spread = np.abs(np.add.reduceat(-share * np.log(share), first).round(12))
    return Votes(
        ballots=cast,
        votes=votes,
        samples=samples[of],
        majority=won,
        entropy=spread[of],
        margin=(lead / samples)[of],
        distinct=np.add.reduceat(cast.read.astype(np.int64), first)[of],
    )


def _answer_codes(column: pa.ChunkedArray, normal: Callable[[str], str]) -> tuple[np.ndarray, list[str]]:
    """For every answer the rank of its normal form among all normal forms, and these in order; an answer that could not
    be read has the rank after the last."""
    encoded = whole(pc.dictionary_encode(column))
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
    entries, entry = np.unique(group.astype(np.int64) * (len(forms) + 1) + answer, return_inverse=True)
    of, rank = np.divmod(entries, len(forms) + 1)
    judged = rank.copy()
    for alike in together(of):
        verifier = verifiers[of[alike[0]]] if len(alike) > 1 else None
        if verifier is None or by_text(verifier):
            continue
        firsts: list[int] = []
        for i in alike[rank[alike] < len(forms)]:
            equal = (first for first in firsts if same(verifier, forms[rank[i]], forms[first]))
            judged[i] = next(equal, rank[i])
            if judged[i] == rank[i]:
                firsts.append(int(rank[i]))
    return judged[entry]
