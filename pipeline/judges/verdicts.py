"""Judges that count verdicts: points for an answer, and what is said of two in both orders."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any

from pydantic import Field

from pipeline.kinds.judge import Judge, Verdict, judge
from pipeline.text.numbers import whole_number

# What a verdict on two answers makes of the first, and of the second.
Meaning = tuple[str, ...]


@judge(verdict="points", score="sum / n", good=lambda arguments: (1 + arguments["scale"]) / 2)
def points(*, scale: Annotated[int, Field(ge=2, le=100)] = 5) -> Judge:
    """The mean of the points that an answer got, from 1 to `scale`; null if none could be read.

    Quantities: asked (samples), n (those with points), sum, unread (those without, or off the scale).

    Paper: Zheng et al. 2023 (MT-Bench, arXiv 2306.05685), section 3.1, grading of one answer; with `scale: 6` the
    scores of Liu et al. 2024 (DEITA, arXiv 2312.15685).
    Differs: several samples have one mean, where DEITA takes the expectation over the probabilities of six digits; what
    cannot be read is no point, where DEITA's code takes 3.
    """

    def score(verdicts: Sequence[Verdict]) -> dict[str, dict[str, Any]]:
        given: dict[str, list[Fraction | None]] = defaultdict(list)
        for verdict in verdicts:
            [answer] = verdict.about
            given[answer] += [_points(text, scale) for text in verdict.said]
        return {answer: _mean(marks) for answer, marks in given.items()}

    return score


def _points(text: str | None, scale: int) -> Fraction | None:
    """The points that a short answer is; None if it is no number of the scale."""
    number = None if text is None else whole_number(text)
    return number.value if number is not None and 1 <= number.value <= scale else None


def _mean(marks: Sequence[Fraction | None]) -> dict[str, Any]:
    read = [mark for mark in marks if mark is not None]
    n, total = float(len(read)), float(sum(read))
    return {
        "score": total / n if read else None,
        "quantities": [("asked", float(len(marks))), ("n", n), ("sum", total), ("unread", len(marks) - n)],
    }


@judge(verdict="better", score="(wins + ties / 2) / (wins + losses + ties)", good=lambda arguments: 0.5)
def wins() -> Judge:
    """The share of decided pairs that an answer wins, a tie being half a win; null if none is decided.

    A pair is decided where both orders of its two answers agree; the samples of an order vote. Quantities: asked (all
    pairs), wins, losses, ties, inconsistent (the orders, or the samples of one, disagree), unread (an order is silent).

    Paper: Zheng et al. 2023 (MT-Bench, arXiv 2306.05685), section 3.4: positions swapped against the bias for one.
    Differs: pairs whose orders disagree are counted by themselves, where the paper calls them ties.
    """
    meaning = {"A": ("wins", "losses"), "B": ("losses", "wins"), "C": ("ties", "ties")}

    def score(verdicts: Sequence[Verdict]) -> dict[str, dict[str, Any]]:
        found = {}
        for answer, count in _counted(verdicts, meaning).items():
            decided = count["wins"] + count["losses"] + count["ties"]
            share = (count["wins"] + count["ties"] / 2) / decided if decided else None
            found[answer] = {"score": share, "quantities": _quantities(count, "wins", "losses", "ties")}
        return found

    return score


@judge(verdict="same", score="equivalent / (equivalent + different)", good=lambda arguments: 0.5)
def equivalent() -> Judge:
    """The share of the other answers that say the same as this one, among those of which both orders agree; null if
    there is none. Quantities: asked, equivalent, different, inconsistent, unread, as in `verdicts.wins`.

    Paper: Jung et al. 2024 (Impossible Distillation, arXiv 2305.16635), the filter by entailment both ways; Howard et
    al. 2024 (NeuroComparatives, arXiv 2305.04978), the vote among siblings.
    Differs: a model is asked whether two texts say the same, where the papers put a threshold on a classifier of
    entailment.
    """
    meaning = {"A": ("equivalent", "equivalent"), "B": ("different", "different")}

    def score(verdicts: Sequence[Verdict]) -> dict[str, dict[str, Any]]:
        found = {}
        for answer, count in _counted(verdicts, meaning).items():
            decided = count["equivalent"] + count["different"]
            share = count["equivalent"] / decided if decided else None
            found[answer] = {"score": share, "quantities": _quantities(count, "equivalent", "different")}
        return found

    return score


def _counted(verdicts: Sequence[Verdict], meaning: Mapping[str, Meaning]) -> dict[str, Counter[str]]:
    """How often which outcome fell to every answer, over all pairs that it is in."""
    votes: dict[tuple[str, ...], Counter[Meaning]] = defaultdict(Counter)
    for verdict in verdicts:
        votes[verdict.about].update(meaning[text] for text in filter(None, verdict.said) if text in meaning)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one, other in {tuple(sorted(about)) for about in votes}:
        forth, back = (_majority(votes.get(about, Counter())) for about in ((one, other), (other, one)))
        if forth is None or back is None:
            outcome: Meaning = ("unread", "unread")
        else:
            outcome = forth if forth and forth == back[::-1] else ("inconsistent", "inconsistent")
        counts[one][outcome[0]] += 1
        counts[other][outcome[1]] += 1
    return counts


def _majority(votes: Counter[Meaning]) -> Meaning | None:
    """What most samples of an order say; nothing in particular if two things were said as often, None if none was."""
    if not votes:
        return None
    (first, most), *rest = votes.most_common(2)
    return () if rest and rest[0][1] == most else first


def _quantities(count: Counter[str], *outcomes: str) -> list[tuple[str, float]]:
    own = {name: float(count[name]) for name in (*outcomes, "inconsistent", "unread")}
    return [("asked", float(count.total())), *own.items()]
