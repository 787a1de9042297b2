"""Selectors and mixtures equal the published reference (PCoreSet) or the paper's equations (DDK)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.kinds.selector import Budget, Candidates, Room
from pipeline.selectors import diversity
from pipeline.stages.gaps import ddk

DATA = Path(__file__).parent / "data"


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


@pytest.mark.parametrize("case", ["small", "dup_ties", "batched", "one_labeled_binary"])
def test_pcoreset_chooses_in_the_order_of_the_official_code(case: str) -> None:
    golden = np.load(DATA / "selection_pcoreset.npz")
    alpha, beta = golden[f"{case}__alpha"], golden[f"{case}__beta"]

    def mixed(kind: str) -> np.ndarray:
        ce, kd = golden[f"{case}__{kind}ce_logits"], golden[f"{case}__{kind}kd_logits"]
        return (1 - alpha) * softmax(ce) + alpha * softmax(kd / beta)

    points = np.concatenate([mixed(""), mixed("labeled_")])
    labelled = np.zeros(len(points), bool)
    labelled[len(mixed("")) :] = True
    names = np.array([f"{i:06d}" for i in range(len(points))], object)
    columns = {"p": points, "labelled": labelled.astype(float)}
    candidates = Candidates(names, names, np.full(len(names), "d", object), np.ones(len(names), int), columns)
    budget = Budget(rows=int(golden[f"{case}__budget"]))

    order = diversity.farthest(points, labelled, Room(candidates, budget, ~labelled))
    assert order == golden[f"{case}__order_pcoreset"].tolist()

    decision = diversity.pcoreset(vector="p", labelled="labelled")(candidates, budget, 0)
    assert set(np.flatnonzero(decision.kept)) == set(order)
    assert set(decision.reason[labelled]) == {"labelled"}


def test_ddk_follows_equations_1_and_2() -> None:
    golden = np.load(DATA / "selection_ddk.npz")
    ratio = golden["ppl_student"] / golden["ppl_teacher"]
    for key, alpha in (("r", float(golden["alpha"])), ("r_alpha09", 0.9)):
        weights = ddk(ratio[0], alpha=1.0)
        np.testing.assert_allclose(weights, golden[key][0], rtol=0, atol=1e-12)
        for step in range(1, len(ratio)):
            weights = ddk(ratio[step], alpha, weights)
            np.testing.assert_allclose(weights, golden[key][step], rtol=0, atol=1e-12)
            assert weights.min() >= (1 - alpha) / ratio.shape[1]
    unsmoothed = np.stack([ddk(r, alpha=1.0) for r in ratio])
    np.testing.assert_allclose(unsmoothed, golden["r_unsmoothed"], rtol=0, atol=1e-12)
