"""Done when 3 of issue 14: two ranks train the student of one process, and a rank that dies ends the stage."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from pipeline.__main__ import main  # noqa: E402
from pipeline.core.run import How  # noqa: E402
from pipeline.core.settings import RunSettings  # noqa: E402
from pipeline.errors import Refused, TryAgain  # noqa: E402
from pipeline.stages.train import Params  # noqa: E402
from pipeline.training.ranks import here, over_ranks, start  # noqa: E402
from tests.training.test_fit import data, kd, losses, one_thread, weights  # noqa: E402, F401

CROSS = {"use": "supervised.cross_entropy"}
TURNS = [
    {"trains": ["peer"], "objectives": [{**CROSS, "of": "peer"}]},
    {"steps": 2, "objectives": [CROSS, {"use": "divergence.forward", "against": "peer"}]},
]
# Of 24 rows in steps of 10 the last has 4; in steps of 23 it has one, and the second rank none.
KINDS: dict[str, dict[str, Any]] = {
    "remembers": {
        "objectives": [{"use": "schedule.taid", "rate": 0.2, "against": "teacher"}, {"use": "feature.hidden"}],
        "shadow": {"every": "step", "decay": 0.9}, "batch_rows": 23,
    },
    "two terms": {"objectives": [CROSS, {"use": "tokens.gated"}], "weight_decay": 0.1},
    "turns": {"objectives": [], "turns": TURNS, "beside": {"peer": "student"}, "batch_rows": 6},
    "sets": {"objectives": [CROSS, {"use": "pairs.simpo"}]},
    "held out": {
        "objectives": [CROSS], "average": 0.5,
        "held_out": {"share": 0.3, "every": 2, "patience": 3, "answers": 4, "max_tokens": 4},
    },
    "adapter": {"objectives": [CROSS], "adapter": {"rank": 2, "alpha": 4.0}, "gradient_checkpointing": True},
}  # fmt: skip
# How far losses and weights of two ranks may be from those of one process: sums of float32 in another order.
ROUNDING = 2e-5


def distilled(data: Path, name: str, ranks: int, **given: Any) -> Path:  # noqa: F811
    return kd(data, "distill", name, "examples/some", ranks=ranks, **{"batch_rows": 10, "steps": 2, **given})


def learnt(data: Path, name: str, ranks: int = 2, **given: Any) -> Path:  # noqa: F811
    given = {"batch_rows": 10, "steps": 2, "epochs": 2, "objectives": [CROSS], **given}
    return kd(data, "train", name, "examples/some", ranks=ranks, **given)


def apart(one: Path, two: Path) -> dict[str, float]:
    """How far weights of two files are apart at most, by name. The keys' part of an attention's bias is left out: its
    gradient is zero, and Adam divides noise by noise."""
    pair = [load_file(one), load_file(two)]
    assert pair[0].keys() == pair[1].keys()
    for one_file in pair:
        for name in (name for name in one_file if name.endswith("attn.c_attn.bias")):
            queries, _, values = one_file[name].chunk(3)
            one_file[name] = torch.cat([queries, values])
    return {name: float((pair[0][name] - pair[1][name]).abs().max()) for name in pair[0]}


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.long] if k != "remembers" else []) for k in KINDS])
def test_two_ranks_train_the_student_of_one_process(
    kind: str,
    data: Path,  # noqa: F811
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Points of the curve, weights, shadows, and what objectives remember; the record says how many ranks there were,
    and one of them speaks."""
    one, two = (distilled(data, f"of_{ranks}", ranks, **KINDS[kind]) for ranks in (1, 2))
    curves = [[json.loads(line) for line in (f / "training.jsonl").read_text().splitlines()] for f in (one, two)]
    assert len(curves[0]) > 4
    for a, b in zip(*curves, strict=True):
        assert b == pytest.approx(a, rel=ROUNDING, abs=ROUNDING)
        assert (b["places"], b["lr"]) == (a["places"], a["lr"])
    places = [next((data / ".checkpoints" / f.name).iterdir()) for f in (one, two)]
    kept = [sorted(file.relative_to(place) for file in place.rglob("*.safetensors")) for place in places]
    assert kept[0] == kept[1] and len(kept[0]) >= 2
    for file in kept[0]:
        assert max(apart(places[0] / file, places[1] / file).values()) < ROUNDING
    moved = apart(one / "model.safetensors", data / "models/base/model.safetensors")
    assert max(moved.values()) > 100 * ROUNDING
    assert max(apart(one / "model.safetensors", two / "model.safetensors").values()) < ROUNDING
    records = [json.loads((data / ".runs/distill" / f"{f.name}.json").read_text()) for f in (one, two)]
    assert [record["notes"] for record in records] == [{"ranks": 1}, {"ranks": 2}]
    said = capfd.readouterr().err
    assert [said.count(f"distill@of_{ranks}: trains on 158 tokens") for ranks in (1, 2)] == [1, 1]


@pytest.mark.long
def test_muon_differs_over_ranks_by_less_than_a_hundredth(data: Path) -> None:  # noqa: F811
    """It makes every direction of a gradient as long as the others, those of rounding too."""
    one, two = (learnt(data, f"of_{ranks}", ranks, optimizer="muon", epochs=8) for ranks in (1, 2))
    found = apart(one / "model.safetensors", two / "model.safetensors")
    sizes = {name: float(weight.abs().max()) for name, weight in load_file(one / "model.safetensors").items()}
    assert len(losses(one)) == 24 and losses(two) == pytest.approx(losses(one), rel=1e-2)
    assert all(found[name] < 1e-2 * sizes[name] for name in found)


def _ends(monkeypatch: pytest.MonkeyPatch, rank: int, step: int, number: signal.Signals, of: str = "self") -> None:
    """Let a signal come at a step of one rank, to it or to its parent."""

    def progress(self: How, done: int, total: int, note: object = "") -> None:
        if done == step and os.environ.get("RANK") == str(rank):
            os.kill(os.getpid() if of == "self" else os.getppid(), number)
            time.sleep(1)

    monkeypatch.setattr(How, "progress", progress)


def test_a_killed_rank_ends_the_stage_and_the_next_run_goes_on_to_the_same_bytes(
    data: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = learnt(data, "whole")
    with monkeypatch.context() as patch:
        _ends(patch, 1, 5, signal.SIGKILL)
        with pytest.raises(TryAgain, match=r"train@student: rank 1 of 2 was ended by SIGKILL.*`dvc repro`") as ended:
            learnt(data, "student")
    assert ended.value.exit_code == 75 and not multiprocessing.active_children()
    assert not (data / "models/student").exists() and not list((data / ".tmp").iterdir())
    (place,) = (data / ".checkpoints/student").iterdir()
    assert (place / "checkpoint-4/complete").exists()
    student = learnt(data, "student")
    assert weights(student) == weights(whole) and losses(student) == losses(whole)


@pytest.mark.long
def test_ranks_end_with_the_stage_that_started_them(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def progress(self: How, done: int, total: int, note: object = "") -> None:
        (data / f"rank-{os.getpid()}").touch()
        if done == 2 and os.environ["RANK"] == "0":
            os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1)

    monkeypatch.setattr(How, "progress", progress)
    stage = multiprocessing.get_context("fork").Process(target=learnt, args=(data, "student"))
    stage.start()
    stage.join(120)
    assert stage.exitcode == -signal.SIGKILL
    ranks = [int(file.name.removeprefix("rank-")) for file in data.glob("rank-*")]
    _, left = psutil.wait_procs([psutil.Process(rank) for rank in ranks if psutil.pid_exists(rank)], timeout=30)
    assert len(ranks) == 2 and all(rank.status() == psutil.STATUS_ZOMBIE for rank in left)


def test_whoever_interrupts_the_stage_ends_its_ranks(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    _ends(monkeypatch, 0, 2, signal.SIGINT, of="parent")
    with pytest.raises(KeyboardInterrupt):
        learnt(data, "student")
    assert not multiprocessing.active_children()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a share of nothing": ({"held_out": {"share": 1e-9}}, Refused, "held_out.share: of 24 rows 0 are held out"),
    "a loss that is no number": ({"learning_rate": 1e30}, FloatingPointError, "the loss is nan at step"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_rank_refuses_is_refused_by_the_stage(case: str, data: Path) -> None:  # noqa: F811
    given, error, told = REFUSED[case]
    with pytest.raises(error, match=told):
        learnt(data, "student", **given)


def test_nothing_is_left_of_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def work() -> None:
        assert over_ranks({"a": here().rank + 1, here().rank: 1}) == {"a": 3, 0: 1, 1: 1}

    start(work, How(RunSettings(ranks=2), tmp_path, "train@kd"), "cpu")
    assert not list(tmp_path.iterdir())


UNDIVIDED: dict[str, tuple[dict[str, Any], str]] = {
    "a feed": ({"feed": {"use": "rollout.on_policy"}}, "rollout.on_policy draws rows from the student as it learns"),
    "an augmentation": ({"augment": [{"use": "moves.shifted"}]}, "moves.shifted makes others of rows that stand toge"),
    "all places": ({"objectives": [{"use": "tokens.entropy"}]}, "tokens.entropy holds all rows of a step against each"),
    "all sets": ({"objectives": [{"use": "pairs.kto", "against": "start"}]}, "pairs.kto holds all rows of a step"),
    "a play": ({"objectives": [{"use": "score.regression"}]}, "score.regression draws what it plays with for rows"),
}


@pytest.mark.parametrize("case", UNDIVIDED)
def test_what_only_one_process_can_do_is_named(case: str) -> None:
    given, told = UNDIVIDED[case]
    given = {"of": "examples/some", "student": "base", "epochs": 1, "seed": 1, "objectives": [CROSS], **given}
    params = Params.model_validate(given)
    assert params.undivided(RunSettings(ranks=1)) == []
    (text,) = params.undivided(RunSettings(ranks=2))
    assert text.startswith(told)


def test_what_cannot_be_divided_is_trained_by_one_process(data: Path, capfd: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    found = learnt(data, "alone", objectives=[{"use": "tokens.entropy"}], epochs=1)
    one = learnt(data, "one", ranks=1, objectives=[{"use": "tokens.entropy"}], epochs=1)
    assert weights(found) == weights(one)
    assert json.loads((data / ".runs/train/alone.json").read_text())["notes"] == {"ranks": 1}
    said = "train@alone: tokens.entropy holds all rows of a step against each other: one process does it, and not `run"
    assert said in capfd.readouterr().err


def test_ranks_that_are_started_from_outside_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "kd"]) == 1
    said = capsys.readouterr().err
    assert "says `run: {ranks: 2}`" in said and "`dvc repro train@kd`, which starts them" in said
