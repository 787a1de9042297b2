"""A model in four bits is the model, nearly: it answers, is read and teaches, and needs bitsandbytes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipeline.contracts import SIGNALS  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.model.load import load  # noqa: E402
from pipeline.origins import local  # noqa: E402
from pipeline.plan.faults import PlanError  # noqa: E402
from pipeline.plan.reading import load as read_params  # noqa: E402
from pipeline.plan.resolve import resolve  # noqa: E402
from pipeline.tables import manifest  # noqa: E402
from pipeline.tables.parquet import Scan  # noqa: E402
from tests.training.test_fit import ROOT, data, kd, losses, probed, run  # noqa: E402, F401

TEACHER = {"use": "local.folder", "path": "data/embedded/teacher", "dtype": "nf4"}
there = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed: `.[quantised]`"
)


def test_without_bitsandbytes_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "bitsandbytes" else real(name, *more)
    )
    with pytest.raises(Refused, match=r"teacher is to be in four bits \(`nf4`\), which needs bitsandbytes"):
        load(ROOT / "data/embedded/teacher", "nf4")


def test_what_is_kept_in_four_bits_does_not_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a teacher it gives all else."""
    monkeypatch.chdir(ROOT)
    given = read_params(ROOT / "params.yaml")
    given["acquire"]["teacher"] = TEACHER
    resolve(given)
    given["train"]["kd"]["student"] = "teacher"
    with pytest.raises(PlanError, match="needs gradients of the model 'teacher'"):
        resolve(given)


@pytest.mark.parametrize(("engine", "path"), [("vllm", "data/embedded/teacher"), ("transformers", "named")])
def test_what_has_no_four_bits_is_refused(engine: local.Engine, path: str, tmp_path: Path) -> None:
    named = tmp_path / "named"
    (named).mkdir()
    for name, text in (("config.json", "{}"), ("places.json", '{"network": "classifier.text"}')):
        (named / name).write_text(text, "utf-8")
    source = named if path == "named" else ROOT / path
    with pytest.raises(Refused, match="`dtype: nf4` is for a language model that transformers runs"):
        local.folder(path=str(source), dtype="nf4", engine=engine)(tmp_path)


@there
@pytest.mark.filterwarnings("default")
def test_a_teacher_in_four_bits_is_read_and_teaches(data: Path) -> None:  # noqa: F811
    whole = Scan(SIGNALS, (probed(data),)).read().sort_by("example_id")
    plain = kd(data, "distill", "plain", "examples/some")
    run(data, "acquire", "teacher", TEACHER, {})
    net = load(data / "models/teacher", "nf4")
    kept = [
        type(module).__name__ for name, module in net.named_modules() if name.endswith(("c_fc", "c_proj", "c_attn"))
    ]
    assert set(kept) == {"Linear4bit"} and net.dtype == torch.bfloat16
    folder = probed(data)
    said, rows = manifest.read(folder), Scan(SIGNALS, (folder,)).read().sort_by("example_id")
    assert said is not None and said.again is not None
    assert (said.dtype, said.again.dtype) == ("nf4", "nf4") and said.again.distance < 0.02
    # The same likeliest token nearly everywhere, and not the same numbers.
    first, other = ([ids[0] for row in t["topk_ids"].to_pylist() for ids in row] for t in (whole, rows))
    assert 0.8 < np.mean(np.array(first) == np.array(other)) <= 1 and whole["target_logprob"] != rows["target_logprob"]
    taught = kd(data, "distill", "taught", "examples/some")
    assert losses(taught)[0] == pytest.approx(losses(plain)[0], rel=0.2) and losses(taught)[-1] < losses(taught)[0]
