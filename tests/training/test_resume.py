"""Done when 4 of the objectives: a training of every kind that ends in its middle goes on to the same bytes.

Here it ends by an exception, in this process, so that every kind can be tried; `test_fit.py`, `test_choices.py` and
`test_rollouts.py` kill a process.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from pipeline.core.run import How  # noqa: E402
from tests.training.test_fit import REMEMBERS, data, kd, losses, one_thread, weights  # noqa: E402, F401

CROSS = {"use": "supervised.cross_entropy"}
MUTUAL = [
    {"trains": ["peer"], "learning_rate": 5e-4, "objectives": [
        {**CROSS, "of": "peer"}, {"use": "divergence.forward", "of": "peer", "against": "student"}]},
    {"steps": 2, "objectives": [CROSS, {"use": "divergence.forward", "against": "peer"}]},
]  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "cross-entropy": {"objectives": [CROSS]},
    "muon and AdamW": {"objectives": [CROSS], "optimizer": "muon", "weight_decay": 0.1},
    "two parts in turns": {"objectives": [], "turns": MUTUAL, "beside": {"peer": "student"}},
    "two parts, muon": {
        "objectives": [], "turns": MUTUAL, "beside": {"peer": "teacher"}, "optimizer": "muon",
    },
    "first looks": {
        "objectives": [
            {"use": "tokens.adaspec", "reference": "start"}, {"use": "divergence.tvd_pp"},
            {"use": "tokens.gated"}, {"use": "tokens.indirect"}, {"use": "tokens.entropy"},
            {"use": "schedule.swing", "reference": "start"},
        ],
    },
    "controllers": {"objectives": [{"use": "schedule.tgeo"}, {"use": "schedule.uskd", "weight": 0.1, "k": 8}]},
    "messages": {
        "objectives": [{"use": "exchange.messages", "tap": "transformer.h.0", "teacher_tap": "transformer.h.0"}],
    },
    "objectives that remember": {k: v for k, v in REMEMBERS.items() if k != "feed"},
    "a shadow of every step": {
        "objectives": [CROSS, {"use": "divergence.jsd", "against": "shadow"}],
        "shadow": {"every": "step", "decay": 0.9},
    },
    "an average": {"objectives": [CROSS], "average": 0.9, "optimizer": "muon"},
    "an adapter": {"objectives": [CROSS], "adapter": {"rank": 2, "alpha": 4.0, "dropout": 0.1}},
    "DoRA": {"objectives": [CROSS], "adapter": {"rank": 2, "alpha": 4.0, "dora": True}},
    "an adapter beside four bits": {
        "objectives": [CROSS], "adapter": {"rank": 2, "alpha": 4.0, "base": "nf4"}, "average": 0.5,
        "held_out": {"share": 0.3, "every": 2},
    },
    "some modules": {"objectives": [CROSS], "trainable": ["transformer.h.0", "lm_head"]},
    "sets": {"objectives": [{"use": "listwise.adpo", "against": "start"}, {"use": "pairs.kto"}]},
    "held out": {"objectives": [CROSS], "held_out": {"share": 0.3, "every": 2}, "learning_rate": 0.01},
    "blocks computed anew": {"objectives": [CROSS], "gradient_checkpointing": True},
}  # fmt: skip


class Ended(BaseException):
    """The end of a process, as far as a training can see it."""


@pytest.mark.filterwarnings("default:.*:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_ends_in_its_middle_goes_on_to_the_same_bytes(
    kind: str,
    data: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def student(name: str) -> Path:
        return kd(data, "distill", name, "examples/some", steps=2, **KINDS[kind])

    if "nf4" in str(KINDS[kind]) and importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed: `.[quantised]`")
    whole = student("whole")
    made: list[int] = []

    def progress(self: How, done: int, total: int, note: object = "") -> None:
        made.append(done)
        if made == [1, 2, 3, 4, 5]:
            raise Ended

    monkeypatch.setattr(How, "progress", progress)
    with pytest.raises(Ended):
        student("ended")
    resumed = student("ended")
    assert made == [1, 2, 3, 4, 5, *range(5, len(losses(whole)) + 1)]
    assert losses(resumed) == losses(whole) and len(losses(whole)) >= 6
    assert weights(resumed) == weights(whole) != weights(data / "models/base")
