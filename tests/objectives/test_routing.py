"""A router's balance is 1 where all experts are used alike, and their number where one is alone."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from pipeline.kinds.objective import View  # noqa: E402
from pipeline.objectives.routing import balance  # noqa: E402

CASES = {
    "one expert alone": ([[50.0, 0, 0, 0]] * 4, 1, 4.0),
    "each in turn": ((50 * torch.eye(4)).tolist(), 1, 1.0),
    # Choices in three places, which fall on 0, 0 and 1, with probabilities of 0.9 and 0.1.
    "two to one": ([[2.1972246, 0], [2.1972246, 0], [0, 2.1972246]], 1, 2 * (2 / 3 * 1.9 + 1 / 3 * 1.1) / 3),
    "all that there are": ([[3.0, 1, 0], [0.0, 1, 2]], 3, 1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_balance(case: str) -> None:
    logits, chosen, wanted = CASES[case]
    view = View(features={"gate": torch.tensor(logits)}, weight_N=torch.ones(len(logits)))
    loss = balance(tap="gate", chosen=chosen)(view)
    assert float(loss.value_N.mean()) == pytest.approx(wanted, abs=1e-5)
