"""Mixtures equal the paper's equations (DDK) and the published reference (LinUCB of KNEXA-FL)."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np

from pipeline.kinds.mixture import Domains
from pipeline.mixtures.bandit import LinUcb
from pipeline.mixtures.weights import ddk

DATA = Path(__file__).parent / "data"


def read(ratio: np.ndarray) -> Domains:
    """Domains of which only a ratio of perplexities is known."""
    names, unknown = np.array([f"d{i}" for i in range(len(ratio))], object), np.full(len(ratio), np.nan)
    return Domains("t", names, np.ones(len(ratio)), unknown, unknown, np.ones(len(ratio)), ratio, unknown)


def test_ddk_follows_equations_1_and_2() -> None:
    golden = np.load(DATA / "selection_ddk.npz")
    ratios = [read(ratio) for ratio in golden["ppl_student"] / golden["ppl_teacher"]]
    for key, alpha in (("r", float(golden["alpha"])), ("r_alpha09", 0.9)):
        weights = ddk(alpha=1.0)(ratios[0])
        np.testing.assert_allclose(weights, golden[key][0], rtol=0, atol=1e-12)
        for step, domains in enumerate(ratios[1:], 1):
            weights = ddk(alpha=alpha, previous=dict(zip(domains.names, weights, strict=True)))(domains)
            np.testing.assert_allclose(weights, golden[key][step], rtol=0, atol=1e-12)
            assert weights.min() >= (1 - alpha) / len(domains)
    unsmoothed = np.stack([ddk(alpha=1.0)(domains) for domains in ratios])
    np.testing.assert_allclose(unsmoothed, golden["r_unsmoothed"], rtol=0, atol=1e-12)


def test_linucb_chooses_the_pairs_of_the_official_code() -> None:
    golden = np.load(DATA / "selection_linucb.npz")
    profiles = golden["profiles"].astype(np.float64)
    agents, width = profiles.shape
    learnt, chosen = LinUcb(2 * width), []
    pairs = list(combinations(range(agents), 2))
    contexts = np.stack([np.concatenate([profiles[i], profiles[j]]) for i, j in pairs])
    rounds = golden["pairs"].reshape(-1, 2, 3)
    rewards = golden["rewards"].reshape(len(rounds), 2)
    for t, (expected, gained) in enumerate(zip(rounds, rewards, strict=True), 1):
        bounds = learnt.bounds(contexts, 1 / np.sqrt(t))
        taken: list[int] = []
        for at in np.argsort(-bounds, kind="stable"):
            if len(taken) < 2 and not any(set(pairs[at]) & set(pairs[other]) for other in taken):
                taken.append(int(at))
        chosen.append([pairs[at] for at in taken])
        assert [tuple(pair) for pair in expected[:, 1:].tolist()] == chosen[-1], t
        for at, reward in zip(taken, gained, strict=True):
            learnt.learn(contexts[at], float(reward))
    np.testing.assert_allclose(learnt.covariance, golden["A_final"], atol=1e-3)
    np.testing.assert_allclose(learnt.reward, golden["b_final"][:, 0], atol=1e-3)
