"""What a training is about to do, in a few lines: on which tokens, and how hard each term pulls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from pipeline.training.loop import Pull

# A term that pulls so many times as hard as another is the training; two of which one is the other are one.
FAR, SAME, ZERO = 100.0, 1e-3, 1e-6
SHOWN = 8


def told(by_domain: Mapping[str, int], pulls: Sequence[Sequence[Pull]]) -> Iterator[str]:
    """Lines for a person."""
    yield f"trains on {sum(by_domain.values()):,} tokens: {domains(by_domain)}"
    for number, turn in enumerate(pulls, 1):
        which = f"turn {number}, " if len(pulls) > 1 else ""
        for pull in turn:
            yield f"{which}{pull.term}: loss {pull.loss:.4g} and gradient {pull.norm:.4g} at the start, weighted"
        yield from warnings(turn)


def domains(by_domain: Mapping[str, int]) -> str:
    """The share of every domain, the largest first."""
    total = max(sum(by_domain.values()), 1)
    order = sorted(by_domain, key=lambda domain: (-by_domain[domain], domain))
    more = [f"{len(order) - SHOWN} more"] if len(order) > SHOWN else []
    return ", ".join([*(f"{domain} {by_domain[domain] / total:.0%}" for domain in order[:SHOWN]), *more])


def warnings(turn: Sequence[Pull]) -> Iterator[str]:
    """What of the terms of a turn is seldom meant: one that pulls on nothing, one that drowns another, two that are
    one. Of one that is 0 at the start, as between models that are still the same, nothing can be told."""
    turn = [pull for pull in turn if not abs(pull.loss) <= ZERO]
    for pull in turn:
        if not pull.norm:
            yield f"CAUTION: {pull.term} has no gradient at the start, so nothing is learnt from it"
    for one, two in combinations(sorted((p for p in turn if p.norm), key=lambda p: -p.norm), 2):
        if one.norm >= FAR * two.norm:
            yield (
                f"CAUTION: {one.term} pulls {one.norm / two.norm:,.0f} times as hard as {two.term}, which is lost "
                f"beside it; change a `weight`"
            )
        elif one.cosine(two) > 1 - SAME**2 and one.norm < (1 + SAME) * two.norm:
            yield f"CAUTION: {one.term} and {two.term} have the same gradient, and are one term with two names"
