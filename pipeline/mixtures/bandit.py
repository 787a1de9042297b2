"""Mixtures that learn from what earlier turns gained: an arm is a teacher with a domain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from typing_extensions import TypedDict

from pipeline.kinds.mixture import Domains, Mixture, mixture


class Turn(TypedDict):
    """What a turn with a teacher in a domain gained, less what it cost, from so many kept rows."""

    teacher: str
    domain: str
    rows: NonNegativeInt
    gain: float
    cost: NonNegativeFloat


class LinUcb:
    """Ridge regression of rewards on contexts of D numbers, and how high a reward may be.

    Paper: Li et al. 2010 (contextual bandits for news, arXiv 1003.0146), algorithm 1, with one model for all arms.
    """

    def __init__(self, width: int, ridge: float = 1.0) -> None:
        self.covariance = ridge * np.eye(width)
        self.reward = np.zeros(width)

    def learn(self, context: np.ndarray, reward: float) -> None:
        """Take in what a context [D] gave."""
        self.covariance += np.outer(context, context)
        self.reward += reward * context

    def bounds(self, contexts: np.ndarray, explore: float) -> np.ndarray:
        """The expected reward of contexts [N, D] and `explore` times its deviation above it, [N]."""
        theta = np.linalg.solve(self.covariance, self.reward)
        spread = np.einsum("nd,dn->n", contexts, np.linalg.solve(self.covariance, contexts.T))
        return contexts @ theta + explore * np.sqrt(np.maximum(spread, 0.0))


@mixture()
def linucb(
    *,
    history: Sequence[Turn] = (),
    arms: PositiveInt = 1,
    ridge: PositiveFloat = 1.0,
    explore: NonNegativeFloat = 1.0,
) -> Mixture:
    """Equal shares for the `arms` domains that may gain most with this teacher, by the turns of `history`.

    A turn's reward is its gain less its cost, and zero where no row was kept. `explore` is divided by the root of the
    number of turns. Of domains with the same bound the first by name goes first.

    Paper: KNEXA-FL (AAAI 2026): LinUCB over pairs of who teaches and who learns.
    Differs: the context names the teacher and the domain, one place each, where the paper has profiles of two peers;
        nothing is learnt from rows that the quality bar refused.
    """

    def mix(domains: Domains) -> np.ndarray:
        teachers = sorted({domains.teacher, *(turn["teacher"] for turn in history)})
        places = [*teachers, *sorted({*domains.names, *(turn["domain"] for turn in history)})]

        def context(teacher: str, domain: str) -> np.ndarray:
            made = np.zeros(len(places))
            made[[teachers.index(teacher), len(teachers) + places[len(teachers) :].index(domain)]] = 1.0
            return made

        learnt = LinUcb(len(places), ridge)
        for turn in history:
            learnt.learn(context(turn["teacher"], turn["domain"]), turn["gain"] - turn["cost"] if turn["rows"] else 0.0)
        contexts = np.stack([context(domains.teacher, name) for name in domains.names])
        bounds = learnt.bounds(contexts, explore / np.sqrt(len(history) + 1))
        best = np.lexsort((domains.names, -bounds.round(12)))[:arms]
        share = np.zeros(len(domains))
        share[best] = 1 / len(best)
        return share

    return mix
