"""On a GPU a model is probed, trained and asked as on a CPU, to rounding. Without one each test is skipped by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipeline.contracts import SIGNALS  # noqa: E402
from pipeline.core.driver import run_instance  # noqa: E402
from pipeline.core.run import How  # noqa: E402
from pipeline.core.settings import RunSettings  # noqa: E402
from pipeline.core.stage import Instance, stage_named  # noqa: E402
from pipeline.kinds.backend import GenerateRequest, Sampling, open_model  # noqa: E402
from pipeline.tables import manifest  # noqa: E402
from pipeline.tables.parquet import Scan  # noqa: E402
from tests.training.test_fit import SIGNALLED, data, losses  # noqa: E402, F401

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: `make gpu` on a machine with one")
DEVICES = ("cpu", "cuda")


def run(folder: Path, device: str, stage: str, name: str, given: dict[str, Any], **inputs: tuple[str, ...]) -> Path:
    """An instance on a device, in a workspace of its own: the memo knows nothing of the other's readings."""
    params = stage_named(stage).params.model_validate(given)
    instance = Instance(stage, name, params, inputs, params.output(name), device)
    run_instance(instance, RunSettings(device=device), folder, folder.parent / device)
    return folder / instance.output


def probed(folder: Path, device: str, **given: Any) -> Path:
    inputs = {"examples": ("examples/some",), "model": ("models/teacher",)}
    return run(folder, device, "probe", "teacher", {"of": "some", "model": "teacher", "top_k": 16, **given}, **inputs)


def test_a_teacher_says_the_same(data: Path) -> None:  # noqa: F811
    found = {}
    for device in DEVICES:
        folder = probed(data, device, temperatures=[1, 2])
        said = manifest.read(folder)
        assert said is not None and said.again is not None and said.again.distance < 1e-4
        found[device] = Scan(SIGNALS, (folder,)).read()
    for name in ("target_logprob", "tail_mass"):
        one, two = (np.concatenate(found[device][name].to_pylist()) for device in DEVICES)
        np.testing.assert_allclose(one, two, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_student_learns_the_same(data: Path, precision: str) -> None:  # noqa: F811
    probed(data, "cpu")
    given = {"of": SIGNALLED, "student": "base", "epochs": 3, "batch_rows": 8, "seed": 17, "precision": precision,
             "objectives": [{"use": "divergence.forward"}, {"use": "supervised.cross_entropy"}]}  # fmt: skip
    inputs = {"rows": (SIGNALLED,), "gates": (f"gates/{SIGNALLED}",), "student": ("models/base",)}
    one, two = (losses(run(data, device, "train", device, given, **inputs)) for device in DEVICES)
    assert two == pytest.approx(one, rel=1e-2 if precision == "float32" else 0.1)


def test_a_model_answers_the_same(data: Path) -> None:  # noqa: F811
    asked = [
        GenerateRequest(f"r{i}", f"p{i}", [{"role": "user", "content": f"add {i:03d} {7 * i:03d}"}], 0, i)
        for i in range(32)
    ]
    said = []
    for device in DEVICES:
        how = How(RunSettings(device=device), data.parent / device, f"ask@{device}")
        with open_model(data / "models/teacher", how) as backend:
            said.append({a.request_id: a.content for a in backend.generate(asked, Sampling(0.0, 1.0, 24))})
    assert sum(said[0][name] == said[1][name] for name in said[0]) >= 31
