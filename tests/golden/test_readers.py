"""Readers against the numbers of published code."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.kinds.backend import Reading
from pipeline.readers import confidence

DATA = Path(__file__).parent / "data"


def test_the_margin_sends_to_the_knowledge_what_nesycd_does() -> None:
    """Their percents are rounded to two decimals before they are averaged."""
    golden = np.load(DATA / "selection_nesycd_gate.npz")
    read = confidence.margin()
    readings = [Reading("r", np.zeros(len(p)), topk_logprobs=np.log(p)) for p in golden["top2_probs"]]
    found = np.array([read(reading)["score"] for reading in readings])
    np.testing.assert_allclose(found, golden["mean_margin_percent"], atol=5e-3)
    assert ((found <= 68) == golden["needs_knowledge"]).all()
