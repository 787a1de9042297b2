"""Points: drawn, read from files, refused by name, made of noise, and measured as clouds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contracts import EVALS
from pipeline.core.driver import run_instance
from pipeline.core.methods import find
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance
from pipeline.errors import Refused
from pipeline.kinds.backend import GenerateRequest, Sampling, open_model
from pipeline.model.folder import hashes
from pipeline.stages.evaluate import Params as Evaluate
from pipeline.tables.parquet import Scan
from pipeline.tables.tensors import arrays, cell
from tests.stages.ingesting import ingest

CLOUDS = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
GREEDY = Sampling(0.0, 1.0, 8)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def saved(**changed: Any) -> str:
    given = {"points": CLOUDS, "y": np.array(["ball", "cube"]), **changed}
    np.savez("clouds.npz", **{name: value for name, value in given.items() if value is not None})
    return "clouds.npz"


def drawn(name: str, **arguments: Any) -> list[dict[str, Any]]:
    found = find("source", f"points.{name}").factory(**{"rows": 12, "seed": 3, **arguments})
    return [dict(row.columns) for row in found]


def test_files_give_clouds_with_their_classes() -> None:
    rows = ingest(use="files.points", path=saved())
    assert [row["reference"] for row in sorted(rows, key=lambda r: r["reference"])] == ["ball", "cube"]
    [bare] = ingest(use="files.points", path=saved(points=CLOUDS[:1], y=None))
    np.testing.assert_array_equal(arrays(bare["inputs"])["points"], CLOUDS[0])
    assert bare["reference"] is None
    pq.write_table(pa.Table.from_pylist([{"points": CLOUDS[0].tolist(), "y": "ball"}]), "clouds.parquet")
    [row] = ingest(use="files.points", path="clouds.parquet")
    assert row["prompt_id"] == bare["prompt_id"]


WRONG = CLOUDS.copy()
WRONG[1, 2, 0] = np.nan


@pytest.mark.parametrize(("changed", "said"), [
    ({"points": WRONG}, "has a point that is none: number 0 of point 2 is nan"),
    ({"points": CLOUDS[0], "y": None}, "has points of the shape"),
    ({"points": CLOUDS[:, :0]}, "has points of the shape"),
    ({"points": None}, "is a cloud without `points`"),
    ({"points": np.array([["a"], ["b"]])}, "no table of numbers"),
])  # fmt: skip
def test_a_bad_cloud_is_named_by_its_file(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=rf"rows cannot be used(.|\n)*{said}(.|\n)*clouds.npz"):
        ingest(use="files.points", path=saved(**changed))


def test_a_file_that_is_no_array_is_refused() -> None:
    Path("clouds.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(Refused, match=r"clouds\.npz cannot be read as an NPZ of numbers"):
        ingest(use="files.points", path="clouds.npz")


def test_a_ring_turns_by_its_knobs() -> None:
    [row, *_] = drawn("ring", points=2000)
    points, centres = row["truth"]["points"], row["truth"]["centres"]
    near = np.linalg.norm(points[:, None] - centres, axis=2)
    assert np.bincount(near.argmin(1), minlength=8).min() > 180 and 0.1 < near.min(1).mean() < 0.15
    assert abs(np.corrcoef(np.c_[row["inputs"]["noise"], points].T)[0, 2]) < 0.1, "noise and points are no pairs"
    far = drawn("ring", points=500, modes=3, radius=4.0, spread=0.01, fading=0.1)[0]["truth"]
    counts = np.bincount(np.linalg.norm(far["points"][:, None] - far["centres"], axis=2).argmin(1), minlength=3)
    assert np.linalg.norm(far["points"], axis=1) == pytest.approx(4.0, abs=0.1) and counts[0] > 5 * counts[1] > 0


def test_solids_turn_by_their_knobs() -> None:
    rows = drawn("solids")
    assert len({row["reference"] for row in rows}) == 6 and all(row["solution"] == row["reference"] for row in rows)
    assert {row["solution"] for row in drawn("solids", labelled=0.0)} == {"?"}
    plain = {r["reference"]: r["inputs"]["points"] for r in drawn("solids", noise=0.0, stretch=0.0, turned=False)}
    assert np.linalg.norm(plain["sphere"], axis=1) == pytest.approx(1.0, abs=1e-5)
    assert np.abs(plain["cube"]).max(1) == pytest.approx(0.8, abs=1e-5)
    around = np.linalg.norm(plain["torus"][:, :2], axis=1)
    assert np.hypot(around - 0.75, plain["torus"][:, 2]) == pytest.approx(0.3, abs=1e-5)
    half = drawn("solids", noise=0.0, stretch=0.0, turned=False, hidden=0.5, points=400)
    [ball] = [row["inputs"]["points"] for row in half if row["reference"] == "sphere"][:1]
    assert ball.shape == (400, 3) and np.linalg.norm(ball.mean(0)) > 0.3, "one side of it is not there"


def model(**changed: Any) -> Path:
    folder = Path("data/models/m")
    folder.mkdir(parents=True)
    given = {"width": 8, "layers": 1, "steps": 3, "seed": 1, **changed}
    method = find("origin", "points.denoiser")
    card = method.factory(**method.arguments.model_validate(given).model_dump())(folder)
    (folder / "model.json").write_text(json.dumps(card), "utf-8")
    return folder


def test_noise_is_answered_with_points_and_remembered() -> None:
    [row] = ingest(use="points.ring", rows=1, points=40, seed=1)
    folder, how = model(), How(RunSettings(device="cpu"), Path("work"), "generate@m")
    request = GenerateRequest("r", row["prompt_id"], [], 0, 0, inputs=row["inputs"])
    with open_model(folder, how) as opened:
        [answer] = opened.generate([request], GREEDY)
    assert answer.content == "points 40 x 2" and arrays(answer.outputs)["points"].shape == (40, 2)


def test_an_evaluation_measures_clouds() -> None:
    """Twice: the second time out of the memo."""
    rows = ingest(use="points.ring", rows=3, points=40, seed=1)
    model()
    params = Evaluate.model_validate({"model": "m", "pool": "train"})
    found = []
    for name in ("one", "two"):
        inputs = {"prompts": ["prompts/train/mine"], "model": ["models/m"]}
        instance = Instance("evaluate", name, params, inputs, f"evals/{name}", "")
        run_instance(instance, RunSettings(device="cpu"), Path("data"), Path())
        found.append(Scan(EVALS, (Path("data/evals", name),)).pylist())
    assert found[0] == found[1] and len(found[0]) == len(rows) == 3
    for row in found[0]:
        assert row["measure"] == "sliced_wasserstein" and row["metric"] > 0.3
        assert dict(row["quantities"]).keys() == {"modes", "tokens"}
        assert arrays(row["outputs"])["points"].shape == (40, 2)


@pytest.mark.parametrize(("inputs", "said"), [
    ({"noise": np.zeros((4, 3), np.float32)}, r"is about noise of the shape \[4, 3\], and the model makes a sample of"),
    ({"points": CLOUDS[0]}, "is about points, and a denoiser needs an input called 'noise'"),
    ({"noise": np.zeros(4, np.float32)}, "has an input 'noise' that is no table of real numbers"),
    (None, "is about nothing but words"),
])  # fmt: skip
def test_what_a_denoiser_cannot_be_asked_is_refused(inputs: dict | None, said: str) -> None:
    with pytest.raises(Refused, match=said):
        find("network", "points.denoiser").factory().pack(model() / "tokenizer", [], "", inputs and cell(inputs))


def test_a_pointnet_refuses_points_of_other_numbers() -> None:
    out = Path("cloud")
    out.mkdir()
    find("origin", "points.pointnet").factory(outcomes=("b", "a"), numbers=3, widths=(4,), seed=1)(out)
    network = find("network", "points.cloud").factory()
    packed = network.pack(out / "tokenizer", [], "b", cell({"points": CLOUDS[0]}))
    assert packed.token_ids == [1] and network.pack(out / "tokenizer", [], "?", cell({"points": CLOUDS[0]})).told == ""
    with pytest.raises(Refused, match="whose points have 2 numbers, and the model reads 3"):
        network.pack(out / "tokenizer", [], "b", cell({"points": CLOUDS[0][:, :2]}))
    with pytest.raises(Refused, match="none is '\\?'"):
        find("origin", "points.pointnet").factory(outcomes=("?", "a"), numbers=3, widths=(4,), seed=1)(out)


SCENE: dict[str, np.ndarray] = {
    "points": CLOUDS[0][:3], "pixel": np.array([5, 0, 5], np.int32),
    "image": np.zeros((2, 4, 3), np.uint8), "areas": np.array([[7, 7, 7, 7], [2, 2, 9, 9]], np.int32),
}  # fmt: skip


def scene(use: str = "points.surroundings") -> Path:
    out = Path(use)
    out.mkdir()
    find("origin", use).factory(outcomes=("b", "a"), size=(2, 4), channels=3, numbers=3, widths=(4,), seed=1)(out)
    return out


def test_a_scene_has_a_place_for_every_area_with_points() -> None:
    """Points and pictures of one form, in the order of the areas' numbers; without areas a place for every point."""
    one, other = scene(), scene("points.camera")
    assert hashes(one / "tokenizer") == hashes(other / "tokenizer")
    network = find("network", "points.scene").factory()
    assert network.pack(one / "tokenizer", [], "b\na", cell(SCENE)).token_ids == [1, 0]
    scanned = network.shown(cell(SCENE))
    assert scanned.place_P.tolist() == [0, 1, 0]
    assert dict(zip(scanned.pixel_M.tolist(), scanned.place_M.tolist(), strict=True)) == {
        0: 1, 1: 1, 2: 1, 3: 1, 4: 0, 5: 0,
    }  # fmt: skip
    bare = {"points": SCENE["points"]}
    assert network.pack(one / "tokenizer", [], "b\n?\na", cell(bare)).token_ids == [1, -1, 0]
    with pytest.raises(Refused, match="a model of pictures is asked about scenes without one"):
        network.look(network.load(other, "float32"), network.batch([network.shown(cell(bare))]), ())


@pytest.mark.parametrize(("changed", "said"), [
    ({"points": CLOUDS[0][:3, :2]}, "points of 2 numbers, and the model reads 3"),
    ({"points": None}, "is about areas, image, pixel, and a network of scenes needs an input called 'points'"),
    ({"pixel": None}, "has 'areas', and no input 'pixel'"),
    ({"pixel": np.array([0, 8, 1], np.int32)}, "a point that is seen in no pixel of a picture of 2 x 4"),
    ({"pixel": np.array([0, 1], np.int32)}, r"'pixel' that is not \[3\] whole numbers"),
    ({"areas": np.zeros((4, 2), np.int32)}, r"'areas' that is not \[2, 4\] whole numbers"),
    ({"areas": np.zeros((2, 4), np.float32)}, r"'areas' that is not \[2, 4\] whole numbers"),
    ({"image": np.zeros((4, 4, 3), np.uint8), "areas": None}, r"of \[4, 4, 3\], and the model looks at \[2, 4, 3\]"),
    ({}, "is about 2 areas, and its answer has 1 lines"),
])  # fmt: skip
def test_what_a_scene_cannot_be_asked_is_refused(changed: dict[str, Any], said: str) -> None:
    given = {name: value for name, value in {**SCENE, **changed}.items() if value is not None}
    with pytest.raises(Refused, match=said):
        find("network", "points.scene").factory().pack(scene() / "tokenizer", [], "b", cell(given))


def test_a_scene_of_a_class_called_unknown_is_refused() -> None:
    for use in ("points.surroundings", "points.camera"):
        with pytest.raises(Refused, match="none is '\\?'"):
            find("origin", use).factory(outcomes=("?", "a"), size=(2, 4), channels=3, numbers=3, widths=(4,), seed=1)(
                Path()
            )
