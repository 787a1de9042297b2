"""What a training tells its reporters, and what those that are installed here have then written."""

from __future__ import annotations

import importlib.util
import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.errors import Refused
from pipeline.training.reporters import REPORTERS, Report, missing, reports
from tests.training.test_fit import data, kd, one_thread, weights  # noqa: F401

POINTS = [{"step": n, "loss": 1 / n, "loss.supervised.cross_entropy": 0.5 / n} for n in range(1, 2500)]
POINTS[-1]["held_out"] = 0.25
Curves = dict[str, list[tuple[int, float]]]


def tensorboard(folder: Path) -> Curves:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "train@kd"), {"scalars": 0}).Reload()
    return {name: [(e.step, e.value) for e in read.Scalars(name)] for name in read.Tags()["scalars"]}


def wandb(folder: Path) -> Curves:
    """Its file is a log of LevelDB's: seven bytes, then blocks of pieces, each behind a sum, a length and a type."""
    from wandb.proto.wandb_internal_pb2 import Record

    [file] = (folder / "train@kd").rglob("*.wandb")
    found: Curves = {}
    kept, at, record = file.read_bytes(), 7, b""
    while at < len(kept):
        at += (32768 - at % 32768) if 32768 - at % 32768 < 7 else 0
        _, length, kind = struct.unpack_from("<IHB", kept, at)
        record, at = record + kept[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):
            history, record = Record.FromString(record).history, b""
            for item in history.item:
                name = item.key or ".".join(item.nested_key)
                found.setdefault(name, []).append((history.step.num, json.loads(item.value_json)))
    return {name: values for name, values in found.items() if not name.startswith("_")}


def mlflow(folder: Path) -> Curves:
    import mlflow as tool

    client = tool.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    [experiment] = client.search_experiments(filter_string="name = 'stillhouse'")
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("train@kd", "FINISHED")
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: [(m.step, m.value) for m in sorted(of, key=lambda m: m.step)] for name, of in histories.items()}


@pytest.mark.parametrize("read", [tensorboard, wandb, mlflow], ids=list(REPORTERS))
@pytest.mark.filterwarnings("default")
def test_a_reporter_has_the_whole_curve_and_one_that_is_gone_on_with_anew(read, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    name = read.__name__
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: uv pip install -e '.[{name}]'")
    how = How(RunSettings(reporters=(name,)), tmp_path, "train@kd")
    with reports(how) as report:
        report(POINTS[:7])
    with reports(how) as report:
        report(POINTS[:-1])
        report(POINTS[-1:])
    wanted = {key: [(p["step"], p[key]) for p in POINTS if key in p] for key in POINTS[-1] if key != "step"}
    found = read(tmp_path / "data/.curves" / name)
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        assert found[key] == [(step, pytest.approx(value)) for step, value in values]


def test_reporters_that_are_not_installed_are_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlflow" else real(name))
    text = "run.reporters names mlflow, which is not installed here: run `uv pip install -e '.[mlflow]'`"
    assert missing(RunSettings(reporters=("mlflow",))) == [text]
    with pytest.raises(Refused, match=re.escape(text)):
        kd(data, "distill", "student", "examples/some", reporters=("mlflow",))


def test_who_watches_decides_nothing_of_a_student(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """And is told the whole curve of a training that is gone on with: its identity knows nothing of who watches it."""
    told: list[Sequence[Mapping[str, float]]] = []

    @contextmanager
    def fake(folder: Path, label: str) -> Iterator[Report]:
        assert label == "distill@student"
        yield lambda points: told.append([dict(point) for point in points])

    monkeypatch.setitem(REPORTERS, "wandb", fake)
    monkeypatch.setattr("pipeline.training.fit.missing", lambda settings: [])
    given = {
        "objectives": [{"use": "supervised.cross_entropy"}, {"use": "divergence.forward", "weight": 0.5}],
        "held_out": {"share": 0.3, "every": 4},
    }
    plain = kd(data, "distill", "plain", "examples/some", **given)
    points = [json.loads(line) for line in (plain / "training.jsonl").read_text("utf-8").splitlines()]
    for reported in ([[], *([point] for point in points)], [points]):
        watched = kd(data, "distill", "student", "examples/some", reporters=("wandb",), **given)
        assert told == reported
        assert weights(watched) == weights(plain)
        assert (watched / "training.jsonl").read_bytes() == (plain / "training.jsonl").read_bytes()
        told.clear()
    # What the terms came to is the loss, and the looks are there.
    for point in points:
        terms = point["loss.supervised.cross_entropy"] + point["loss.divergence.forward"]
        assert terms == pytest.approx(point["loss"], rel=1e-5)
    assert [point["step"] for point in points if "held_out" in point] == [4, 8, 9]
