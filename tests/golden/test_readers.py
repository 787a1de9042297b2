"""Readers against the numbers of published code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pipeline.kinds.backend import Reading
from pipeline.model import gradients
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


def test_adams_direction_is_that_of_less() -> None:
    golden = np.load(DATA / "selection_less.npz")
    given = (torch.from_numpy(golden[f"adam_{name}"]) for name in ("raw_grad", "m", "v"))
    np.testing.assert_allclose(gradients.adams(*given, 0.9, 0.999), golden["adam_feature"], rtol=1e-12)
