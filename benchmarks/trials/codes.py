"""Trials of codes: what comes next is foretold by a few whole numbers for each thing."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.trials.simulated import chain
from benchmarks.trials.trial import FIGURES, built, trial
from pipeline.kinds.objective import View
from pipeline.kinds.transform import Signals
from pipeline.nets.pairs import Pair, PairConfig
from pipeline.tables import ids

KINDS, ITEMS, LATENT, LENGTH = 16, 240, 6, 12
# Numbers that only one of the vectors has, and how strong they are: a text says much that no reader cares for.
OWN, COLLABORATIVE, SEMANTIC = 8, 0.7, 1.5
BEST = 10


@dataclass(frozen=True)
class Shop:
    """Items with two vectors each, and what users took one after another: [users, LENGTH], half of them unseen."""

    one: np.ndarray
    other: np.ndarray
    taken: np.ndarray
    unseen: np.ndarray

    @classmethod
    def drawn(cls, seed: int) -> Shop:
        rng = ids.generator(seed, "shop")
        kind = rng.integers(KINDS, size=ITEMS)
        meant = rng.normal(size=(KINDS, LATENT))[kind] + 0.2 * rng.normal(size=(ITEMS, LATENT))
        vectors = []
        for width, strength in ((24, COLLABORATIVE), (48, SEMANTIC)):
            whole = np.column_stack([meant, strength * rng.normal(size=(ITEMS, OWN))])
            seen = whole @ rng.normal(size=(LATENT + OWN, width)) / np.sqrt(LATENT + OWN)
            vectors.append((seen + 0.1 * rng.normal(size=seen.shape)).astype(np.float32))
        follows = chain(rng, KINDS, KINDS, 0.1).cumsum(1)
        walks = rng.integers(KINDS, size=(600, LENGTH))
        for at in range(1, LENGTH):
            step = (rng.random(len(walks))[:, None] > follows[walks[:, at - 1]]).sum(1)
            walks[:, at] = np.minimum(step, KINDS - 1)
        of = [np.flatnonzero(kind == k) if (kind == k).any() else np.arange(ITEMS) for k in range(KINDS)]
        taken = np.array([[rng.choice(of[k]) for k in walk] for walk in walks])
        return cls(vectors[0], vectors[1], taken[:300], taken[300:])

    def found(self, vectors: np.ndarray, seed: int) -> float:
        """The share of what is taken next that is among the BEST items by the codes of these vectors, in per cent."""
        nothing = np.zeros((ITEMS, 1), np.float32)
        signals = Signals(
            np.array([f"{i:06d}" for i in range(ITEMS)]), nothing[:, 0], np.arange(ITEMS), np.zeros(ITEMS, int),
            nothing.astype(np.int32), nothing, nothing[:, 0], nothing[:, 0], {"last": vectors},
        )  # fmt: skip
        codes = built("transform", "codes.residual", size=6)(signals, signals, seed).features["codes"]
        code = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
        counts = np.full((code.max() + 1, code.max() + 1), 0.05)
        np.add.at(counts, (code[self.taken[:, :-1]], code[self.taken[:, 1:]]), 1.0)
        often = 1.0 + np.bincount(self.taken.flatten(), minlength=ITEMS)
        share = often / np.bincount(code, weights=often)[code]
        next_CI = (counts / counts.sum(1, keepdims=True))[:, code] * share
        best = np.argsort(-next_CI, 1, kind="stable")[:, :BEST]
        return 100 * float((best[code[self.unseen[:, :-1]]] == self.unseen[:, 1:, None]).any(2).mean())


@functools.cache
def searched(seed: int) -> dict[str, float]:
    """What is found by the codes of fused vectors, of both side by side, and of either alone."""
    shop = Shop.drawn(seed)
    one, other = torch.from_numpy(shop.one), torch.from_numpy(shop.other)
    torch.manual_seed(seed)
    net = Pair(PairConfig((24, 48), 16, num_labels=2))
    judge, weight = built("objective", "contrast.sides", tap="one", other="other", temperature=0.2), torch.ones(ITEMS)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3, weight_decay=1e-4)
    for _ in range(200):
        loss = judge(View(features={"one": net.one(one), "other": net.other(other)}, weight_N=weight))
        optimizer.zero_grad()
        loss.value_N.mean().backward()
        optimizer.step()
    with torch.no_grad():
        unit = [torch.nn.functional.normalize(each, dim=1) for each in (net.one(one), net.other(other))]
        fused = (unit[0] + unit[1]).numpy()
    vectors = {"fused": fused, "both": np.column_stack([shop.one, shop.other]), "one": shop.one, "other": shop.other}
    return {name: shop.found(each, seed) for name, each in vectors.items()}


NEXT = f"percent of what is taken next that is among {BEST}"
PRO = ("objective contrast.sides", "transform codes.residual")


@trial(*PRO, after="PRORec", control="codes of both vectors side by side", measure=NEXT)
def fused_codes(seed: int) -> FIGURES:
    """Codes of two vectors of an item that were brought together foretell what is taken next."""
    found = searched(seed)
    return found["fused"], found["both"]


@trial(*PRO, after="PRORec", control="codes of the collaborative vector alone", measure=NEXT)
def fused_over_collaborative(seed: int) -> FIGURES:
    """They foretell it better than those of what users took."""
    found = searched(seed)
    return found["fused"], found["one"]


@trial(*PRO, after="PRORec", control="codes of the semantic vector alone", measure=NEXT)
def fused_over_semantic(seed: int) -> FIGURES:
    """They foretell it better than those of what a text says."""
    found = searched(seed)
    return found["fused"], found["other"]
