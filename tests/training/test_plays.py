"""Generators in turns with a model that follows them: killed and gone on with to the same bytes, and nobody moves out
of turn."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from pipeline.contracts import EXAMPLES  # noqa: E402
from pipeline.core.methods import find  # noqa: E402
from pipeline.core.run import How  # noqa: E402
from pipeline.core.settings import RunSettings  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.kinds.objective import Step  # noqa: E402
from pipeline.model import noising  # noqa: E402
from pipeline.model.folder import hashes  # noqa: E402
from pipeline.plan.faults import PlanError  # noqa: E402
from pipeline.plan.reading import load  # noqa: E402
from pipeline.plan.resolve import resolve  # noqa: E402
from pipeline.stages.distill import Params  # noqa: E402
from pipeline.tables.parquet import Scan, part_name  # noqa: E402
from pipeline.tables.tensors import cell  # noqa: E402
from pipeline.training import loop  # noqa: E402
from pipeline.training.fit import fit  # noqa: E402

ROOT = Path(__file__).parents[2]
SIM: dict[str, Any] = {
    "of": "examples/noise", "student": "student", "teacher": "teacher", "beside": {"fake": "teacher"}, "seed": 3,
    "epochs": 3, "batch_rows": 1, "warmup_steps": 1,
    "turns": [
        {"trains": ["fake"], "steps": 2, "objectives": [{"use": "score.following", "of": "fake"}]},
        {"objectives": [{"use": "score.implicit"}]},
    ],
}  # fmt: skip


def made(folder: Path, seed: int) -> Path:
    folder.mkdir(parents=True)
    method = find("origin", "points.denoiser")
    given = method.arguments.model_validate({"width": 8, "layers": 2, "steps": 1, "seed": seed}).model_dump()
    (folder / "model.json").write_text(json.dumps(method.factory(**given)(folder)), "utf-8")
    return folder


def rows(place: Path, form: Path, truth: bool = False) -> Scan:
    """Four rows of noise, with what is to be made of it or without."""
    place.mkdir(parents=True)
    template, tokenizer = hashes(form)
    listed = []
    for i in range(4):
        drawn = np.random.default_rng(i).standard_normal((2, 6, 2)).astype(np.float32)
        listed.append({
            "example_id": f"{i:04d}", "prompt_id": f"{i:04d}", "domain": "d", "token_ids": [-1] * 6,
            "spans": [{"start": 0, "end": 6}], "weight": 1.0, "template_hash": template, "tokenizer_hash": tokenizer,
            "response_ids": ["r"], "inputs": cell({"noise": drawn[0]}),
            "outputs": cell({"points": drawn[1]}) if truth else None,
        })  # fmt: skip
    pq.write_table(pa.Table.from_pylist(listed, EXAMPLES.schema), place / part_name(0))
    return Scan(EXAMPLES, (place,))


def trained(place: Path, out: str, given: dict[str, Any] = SIM, truth: bool = False) -> dict[str, bytes]:
    """The bytes of every file of a student that was trained."""
    student, teacher = place / "student", place / "teacher"
    if not student.exists():
        made(student, 1), made(teacher, 2), rows(place / "examples", student / "tokenizer", truth)
    scan = Scan(EXAMPLES, (place / "examples",))
    how = How(RunSettings(device="cpu", checkpoint_steps=5), place / out / "work", "distill@sim")
    (place / out / "model").mkdir(parents=True, exist_ok=True)
    fit(Params.model_validate(given), scan, student, teacher, place / out / "model", how, "sim", place, {})
    return {p.name: p.read_bytes() for p in (place / out / "model").iterdir() if p.is_file()}


def test_a_run_of_two_parts_that_is_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """By kill -9 in the middle of a round of turns, on a CPU."""
    whole = trained(tmp_path, "whole")
    child = os.fork()
    if child == 0:
        original = loop.Trainer._step

        def dies(self: loop.Trainer, step: Step, *given: Any) -> dict[str, float]:
            if step.number == 7:
                os.kill(os.getpid(), 9)
            return original(self, step, *given)

        loop.Trainer._step = dies  # type: ignore[method-assign]
        trained(tmp_path, "stopped")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 9
    assert [p.name for p in (tmp_path / "stopped").rglob("checkpoint-*")] == ["checkpoint-5"]
    resumed = trained(tmp_path, "stopped")
    assert resumed == whole and {"model.safetensors", "training.jsonl"} <= whole.keys()
    assert whole["model.safetensors"] != (tmp_path / "student/model.safetensors").read_bytes()


def test_only_the_parts_of_a_turn_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a generator learns through a follower that stays as it is."""
    moved: list[set[str]] = []
    original = loop.Trainer._step

    def watched(self: loop.Trainer, step: Step, *given: Any) -> dict[str, float]:
        everyone = {**self.parts, **self.fixed}
        before = {name: [p.detach().clone() for p in part.parameters()] for name, part in everyone.items()}
        point = original(self, step, *given)
        moved.append({
            name for name, part in everyone.items()
            if not all(torch.equal(a, b) for a, b in zip(before[name], part.parameters(), strict=True))
        })  # fmt: skip
        return point

    monkeypatch.setattr(loop.Trainer, "_step", watched)
    trained(tmp_path, "watched")
    assert moved == [{"fake"}, {"fake"}, {"student"}] * 4


def test_what_is_to_be_made_must_be_there(tmp_path: Path) -> None:
    given = {**SIM, "turns": [], "beside": {}, "objectives": [{"use": "score.regression"}]}
    with pytest.raises(Refused, match=r"score\.regression learns arrays called 'points', and the rows have none"):
        trained(tmp_path / "without", "it", given)
    assert trained(tmp_path / "with", "it", given, truth=True)


def test_noise_is_all_that_is_left_at_the_end_and_none_at_the_beginning() -> None:
    x, noise = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0))
    for t, expected in ((0.0, x), (1.0, noise)):
        torch.testing.assert_close(noising.noised(x, noise, torch.full((5,), t)), expected, rtol=0, atol=1e-6)
    t = torch.rand(9)
    torch.testing.assert_close(noising.signal(t).square() + noising.spread(t).square(), torch.ones(9))


def test_one_who_knows_the_sample_makes_it_in_any_number_of_steps() -> None:
    x, noise = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0))
    for steps in (1, 4, 9):
        torch.testing.assert_close(noising.sampled(lambda _, __: x, noise, steps), x, rtol=0, atol=1e-5)
    # Of a normal distribution the best guess is known, and samples stay normal however finely it is stepped.
    guess = lambda at, t: noising.along(noising.signal(t), at) * at  # noqa: E731
    torch.testing.assert_close(noising.sampled(guess, noise, 400), noise, rtol=0, atol=0.02)


def refused(**changed: Any) -> str:
    """What plan says of the recipe of points with another objective of SIM's generator."""
    params = load(ROOT / "recipes" / "points.yaml")
    params["distill"]["sim"]["turns"][1]["objectives"] = [{"use": "score.implicit", **changed}]
    with pytest.raises(PlanError) as error:
        resolve(params)
    return str(error.value)


@pytest.mark.parametrize(("changed", "said"), [
    ({"fake": "nobody"}, "distill.sim: score.implicit names 'nobody'; there are fake, start, student, teacher"),
    ({"where": "labelled"}, "score.implicit plays with every place: leave out `where: labelled`"),
    ({"use": "divergence.forward"}, "divergence.forward reads student_NV, teacher, which a points.denoiser such as"),
])  # fmt: skip
def test_a_play_that_cannot_be_is_refused_by_plan(changed: dict[str, Any], said: str) -> None:
    assert said in refused(**changed)
