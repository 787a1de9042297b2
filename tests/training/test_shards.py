"""A student whose blocks lie over two ranks learns what one process teaches it, and no rank holds all of it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from pipeline.core.settings import RunSettings  # noqa: E402
from pipeline.errors import Refused, TryAgain  # noqa: E402
from pipeline.stages.train import Params  # noqa: E402
from pipeline.training import loop, shards  # noqa: E402
from pipeline.training.checkpoints import Checkpoints  # noqa: E402
from tests.training.test_fit import data, kd, losses, one_thread, weights  # noqa: E402, F401
from tests.training.test_ranks import CROSS, ROUNDING, _ends, apart, learnt  # noqa: E402

# Of 24 rows in steps of 10 the last has 4; in steps of 23 or 1 it has one, and the second rank none.
KINDS: dict[str, dict[str, Any]] = {
    "remembers": {
        "objectives": [{"use": "schedule.taid", "rate": 0.2, "against": "teacher"}, {"use": "feature.hidden"}],
        "batch_rows": 23,
    },
    "an early state": {
        "objectives": [{"use": "feature.hidden", "tap": "transformer.h.0", "teacher_tap": "transformer.h.0"}],
        "batch_rows": 23, "weight_decay": 0.1,
    },
    "a peer beside": {
        "objectives": [], "beside": {"peer": "student"}, "batch_rows": 1, "epochs": 0.25,
        "turns": [{"trains": ["student", "peer"], "objectives": [CROSS, {**CROSS, "of": "peer"}]}],
    },
    "sets": {"objectives": [CROSS, {"use": "pairs.simpo"}]},
    "held out": {
        "objectives": [CROSS], "gradient_checkpointing": True,
        "held_out": {"share": 0.3, "every": 2, "keep": "last", "answers": 4, "max_tokens": 4},
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.long] if k != "remembers" else []) for k in KINDS])
def test_what_lies_over_ranks_learns_as_one_process_does(kind: str, data: Path) -> None:  # noqa: F811
    given = {"batch_rows": 10, "steps": 2, "learning_rate": 1e-3, **KINDS[kind]}
    one, two = (
        kd(data, "distill", name, "examples/some", ranks=ranks, shard=ranks > 1, **given)
        for name, ranks in (("one", 1), ("two", 2))
    )
    curves = [[json.loads(line) for line in (f / "training.jsonl").read_text().splitlines()] for f in (one, two)]
    assert len(curves[0]) > 4
    for a, b in zip(*curves, strict=True):
        assert b == pytest.approx(a, rel=ROUNDING, abs=ROUNDING)
    assert max(apart(one / "model.safetensors", data / "models/base/model.safetensors").values()) > 100 * ROUNDING
    assert max(apart(one / "model.safetensors", two / "model.safetensors").values()) < ROUNDING


def test_a_rank_holds_half_of_the_blocks_and_goes_on_from_its_half(
    data: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its weights and moments; and a killed training comes to the same bytes."""
    held, save = data / "held", Checkpoints.save

    def saved(self: Checkpoints, curve: Any) -> None:
        [part], [optimizer] = self.split.values(), self.split_by.values()
        found = shards._held(part, optimizer)
        sizes = [
            (shards.own(t).numel(), t.numel()) for n, t in found.items() if ".h." in n and not n.startswith("step")
        ]
        (held / f"{shards.here().rank}-{len(curve)}").write_text(json.dumps(sizes))
        save(self, curve)

    held.mkdir()
    monkeypatch.setattr(Checkpoints, "save", saved)
    whole = learnt(data, "whole", shard=True)
    assert json.loads((data / ".runs/train/whole.json").read_text())["notes"] == {"ranks": 2, "shard": True}
    for rank in range(2):
        own, of = map(sum, zip(*json.loads((held / f"{rank}-4").read_text()), strict=True))
        assert of > 10_000 and 0.45 < own / of < 0.55
    with monkeypatch.context() as patch:
        _ends(patch, 1, 5, signal.SIGKILL)
        with pytest.raises(TryAgain, match="rank 1 of 2 was ended by SIGKILL"):
            learnt(data, "student", shard=True)
    (place,) = (data / ".checkpoints/student").iterdir()
    assert (place / "checkpoint-4/complete").exists() and len(list((place / "checkpoint-4").rglob("*.distcp"))) == 2
    student = learnt(data, "student", shard=True)
    assert weights(student) == weights(whole) and losses(student) == losses(whole)


def test_a_rank_that_dies_while_a_block_is_put_together_is_told_of(
    data: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look = loop.loss_of

    def dies(terms: Any, inputs: Any, found: Any, roles: Any, step: Any, totals: Any) -> Any:
        if step.number == 2 and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return look(terms, inputs, found, roles, step, totals)

    monkeypatch.setattr(loop, "loss_of", dies)
    with pytest.raises(TryAgain, match="rank 1 of 2 was ended by SIGKILL, as a machine out of memory does"):
        learnt(data, "student", shard=True)


UNSPLIT: dict[str, tuple[dict[str, Any], str]] = {
    "an adapter": ({"adapter": {"rank": 2, "alpha": 4.0}}, "adapter needs the student whole"),
    "an average": ({"average": 0.9}, "average needs"),
    "a shadow": ({"shadow": {"every": "step", "decay": 0.9}, "objectives": [{"use": "divergence.forward"}]}, "shadow"),
    "muon": ({"optimizer": "muon"}, "optimizer: muon needs"),
    "moments": ({"keep_moments": True}, "keep_moments needs"),
    "the best": ({"held_out": {"share": 0.3}}, r"held_out: {keep: best} needs"),
    "a rest": (
        {"objectives": [], "beside": {"peer": "student"},
         "turns": [{"trains": ["peer"], "objectives": [{**CROSS, "of": "peer"}]}, {"objectives": [CROSS]}]},
        "a turn in which the student rests needs",
    ),
    "a second look": (
        {"objectives": [{"use": "exchange.messages", "tap": "last", "teacher_tap": "last"}]},
        "exchange.messages looks at the student again inside",
    ),
    "a feed": ({"feed": {"use": "rollout.on_policy"}}, "rollout.on_policy draws rows from the student as it learns"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSPLIT)
def test_what_needs_the_student_whole_is_refused(case: str) -> None:
    given, told = UNSPLIT[case]
    given = {"of": "examples/some", "student": "base", "epochs": 1, "seed": 1, "objectives": [CROSS], **given}
    params = Params.model_validate(given)
    assert params.unsplit(RunSettings(ranks=2)) == []
    (text,) = params.unsplit(RunSettings(ranks=2, shard=True))
    assert text.startswith(f"run.shard: {told}") and text.endswith("leave that out, or write `shard: false`")


def test_one_rank_shares_nothing(data: Path) -> None:  # noqa: F811
    with pytest.raises(Refused, match=r"run.shard: there is one rank"):
        learnt(data, "student", ranks=1, shard=True)


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(Refused, match=r"run.shard: small's network names no blocks that ranks could share"):
        shards.split(torch.nn.Linear(2, 2), "cpu", "small")
