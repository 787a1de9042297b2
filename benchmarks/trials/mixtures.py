"""Trials of mixtures: what the next tokens are spent on."""

from __future__ import annotations

import numpy as np

from benchmarks.trials.simulated import Ngrams, chain, walks
from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.kinds.mixture import Domains, Mixture
from pipeline.tables import ids

NATURAL = np.array([0.40, 0.30, 0.15, 0.10, 0.05])
SYMBOLS, LENGTH, INTERVALS, ROWS = 24, 52, 10, 60
WORST = "worst domain's perplexity, student over teacher"


def after_training(seed: int, mixture: str) -> float:
    """Of five Markov domains the worst ratio of perplexities after ten intervals, the first of them natural."""
    rng = ids.generator(seed, "ddk")
    truths = [chain(rng, SYMBOLS, SYMBOLS, evenness) for evenness in rng.permutation([0.05, 0.1, 0.2, 0.4, 0.8])]
    held_out = [walks(rng, truth, 200, LENGTH) for truth in truths]
    names = np.array([f"d{i}" for i in range(len(truths))], object)
    unknown = np.full(len(truths), np.nan)
    teacher = np.array([
        np.exp(-np.log(truth[texts[:, 1:-1], texts[:, 2:]] + 1e-12).mean())
        for truth, texts in zip(truths, held_out, strict=True)
    ])  # fmt: skip
    learnt: list[list[np.ndarray]] = [[] for _ in truths]
    share, student = NATURAL, unknown
    for interval in range(INTERVALS):
        if interval and mixture == "ddk":
            mix: Mixture = built("mixture", "weights.ddk", previous=dict(zip(names, share.tolist(), strict=True)))
            share = mix(Domains("teacher", names, np.ones(len(names)), unknown, unknown, teacher, student, unknown))
        elif interval and mixture == "even":
            share = np.full(len(names), 1 / len(names))
        for texts, truth, rows in zip(learnt, truths, rng.multinomial(ROWS, share), strict=True):
            texts.append(walks(rng, truth, rows, LENGTH))
        student = np.array([
            np.exp(Ngrams.learnt(np.concatenate(texts), SYMBOLS, 2).nll(unseen).mean())
            for texts, unseen in zip(learnt, held_out, strict=True)
        ])  # fmt: skip
    return float((student / teacher).max())


@trial(
    "mixture weights.ddk",
    after="DDK",
    control="the natural mixture, 40 to 5 %, as many tokens",
    measure=WORST,
    less=True,
)
def ddk(seed: int) -> FIGURES:
    """Weights by the gap in perplexity bring up the domain that is furthest behind."""
    return after_training(seed, "ddk"), after_training(seed, "natural")


@trial(
    "mixture weights.ddk",
    after="DDK",
    control="equal shares, as many tokens",
    measure=WORST,
    less=True,
)
def ddk_over_even(seed: int) -> FIGURES:
    """Weights by the gap in perplexity do better than giving every domain the same."""
    return after_training(seed, "ddk"), after_training(seed, "even")


@trial(
    "mixture bandit.linucb",
    after="KNEXA-FL",
    control="a domain by chance",
    measure="share of the best possible gain, 60 rounds",
)
def linucb(seed: int) -> FIGURES:
    """The bandit, with an exploration of 2, finds the domain in which a teacher gains most."""
    rng = ids.generator(seed, "linucb")
    teachers = {f"t{i}": gain for i, gain in enumerate(rng.uniform(0, 0.5, 2))}
    names = np.array([f"d{i}" for i in range(6)], object)
    gains, unknown = rng.uniform(0, 1, len(names)), np.full(len(names), np.nan)
    history: list[dict[str, object]] = []
    reached = by_chance = possible = 0.0
    for turn in range(60):
        teacher = f"t{turn % len(teachers)}"
        mix: Mixture = built("mixture", "bandit.linucb", history=history, explore=2.0)
        share = mix(Domains(teacher, names, np.ones(len(names)), unknown, unknown, unknown, unknown, unknown))
        best = int(share.argmax())
        gain = teachers[teacher] + gains[best] + 0.1 * rng.normal()
        history.append({"teacher": teacher, "domain": names[best], "rows": 1, "gain": gain, "cost": 0.0})
        reached += teachers[teacher] + gains[best]
        by_chance += teachers[teacher] + gains[rng.integers(len(names))]
        possible += teachers[teacher] + gains.max()
    return reached / possible, by_chance / possible
