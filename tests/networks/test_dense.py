"""Pixels and key points: what is asked about, what an answer says of each place, and what cannot be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipeline.core.methods import find  # noqa: E402
from pipeline.core.run import How  # noqa: E402
from pipeline.core.settings import RunSettings  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.kinds.backend import GenerateRequest, Sampling, Tokens, Want, open_model  # noqa: E402
from pipeline.nets import pictures  # noqa: E402
from pipeline.networks.dense import Pixels  # noqa: E402
from pipeline.tables.tensors import cell  # noqa: E402
from tests.networks.test_classifier import made  # noqa: E402

GREEDY = Sampling(0.0, 1.0, 8)
PIXELS: dict[str, Any] = {"outcomes": ["wall", "door"], "size": [4, 5], "channels": 1, "seed": 4}
POINTS: dict[str, Any] = {"parts": ["head", "hand", "foot"], "size": [4, 5], "channels": 1, "widths": [4], "seed": 4}
PICTURE = np.random.default_rng(0).integers(0, 256, (4, 5, 1)).astype(np.uint8)
ASKED = [{"role": "user", "content": ""}]
GIVEN = {"image": PICTURE, "parts": np.array([0, 2], np.int32)}


def said(folder: Path, inputs: dict[str, Any], tmp_path: Path, places: int) -> tuple[str, np.ndarray]:
    """The greedy answer, and the log-probabilities of all outcomes at every place."""
    request = GenerateRequest("r", "p", ASKED, 0, 1, inputs=cell(inputs))
    tokens = Tokens("r", [0] * places, list(range(places)), cell(inputs))
    with open_model(folder, How(RunSettings(device="cpu"), tmp_path, "generate@teacher")) as opened:
        [answer] = opened.generate([request], GREEDY)
        [reading] = opened.read([tokens], Want(top_k=100))
    whole = np.zeros_like(reading.topk_logprobs)
    np.put_along_axis(whole, reading.topk_ids.astype(np.int64), reading.topk_logprobs, 1)
    return answer.content or "", whole


@pytest.mark.parametrize("use", ["dense.conv", "dense.segformer"])
def test_an_answer_has_a_line_for_each_pixel(use: str, tmp_path: Path) -> None:
    more = {"widths": [4]} if use == "dense.conv" else {"widths": [4, 8], "heads": 1, "size": [4, 4]}
    folder = made(tmp_path / "m", use, **{**PIXELS, **more})
    picture = PICTURE[:, : more.get("size", [4, 5])[1]]
    answer, log_p_NV = said(folder, {"image": picture}, tmp_path, picture.size)
    assert answer.split("\n") == [["door", "wall"][best] for best in log_p_NV.argmax(1)]
    packed = (
        find("network", "dense.pixels")
        .factory()
        .pack(folder / "tokenizer", ASKED, answer.replace("door", "?"), cell({"image": picture}))
    )
    assert packed.token_ids == [-1 if best == 0 else 1 for best in log_p_NV.argmax(1)] and not packed.told


def test_an_answer_has_a_line_for_each_point_that_is_asked_about(tmp_path: Path) -> None:
    folder = made(tmp_path / "m", "dense.points", **POINTS)
    answer, log_p_NV = said(folder, GIVEN, tmp_path, 2)
    cells = [f"{row:02d} {column:02d}" for row in range(4) for column in range(5)]
    assert answer.split("\n") == [cells[best] for best in log_p_NV.argmax(1)] and log_p_NV.shape == (2, 20)
    network = find("network", "dense.keypoints").factory()
    net = network.load(folder, "float32")
    with torch.no_grad():
        heat = net((torch.from_numpy(PICTURE)[None, None, :, :, 0] / 255 - 0.5) / 0.5).logits[0, [0, 2]].flatten(1)
    np.testing.assert_allclose(log_p_NV, heat.log_softmax(1), atol=1e-5)
    packed = network.pack(folder / "tokenizer", ASKED, "1 3\n?", cell(GIVEN))
    assert packed.token_ids == [cells.index("01 03"), -1]


def test_without_a_word_all_points_are_asked_about(tmp_path: Path) -> None:
    folder, network = made(tmp_path / "m", "dense.points", **POINTS), find("network", "dense.keypoints").factory()
    packed = network.pack(folder / "tokenizer", ASKED, "1 1\n2 2\n?", cell({"image": PICTURE}))
    assert len(packed.token_ids) == 3 and network.shown(packed.inputs).parts.tolist() == [0, 1, 2]
    assert network.pack(folder / "tokenizer", ASKED, "1 1\n2 2", cell(GIVEN)).inputs is None


@pytest.mark.parametrize(("network", "answer", "change", "told"), [
    ("pixels", "wall", {}, "is about 20 pixels, and its answer has 1 lines"),
    ("pixels", "\n".join(["wall"] * 20), {"image": PICTURE[:3]}, "is a picture of 3 x 5 x 1"),
    ("pixels", "\n".join(["wall"] * 20), {"image": None}, "is about parts, and a classifier of pictures needs"),
    ("keypoints", "1 1", {}, "is about 2 points, and its answer has 1 lines"),
    ("keypoints", "1 1\n2 2", {"parts": np.array([2, 0], np.int32)}, "not ascending numbers from 0 to 2"),
    ("keypoints", "1 1\n2 2", {"parts": np.array([0, 3], np.int32)}, "not ascending numbers from 0 to 2"),
    ("keypoints", "1 1\n2 2", {"parts": np.ones((2, 2), np.float32)}, "that is no list of whole numbers"),
])  # fmt: skip
def test_what_cannot_be_packed_is_refused(network: str, answer: str, change: dict, told: str, tmp_path: Path) -> None:
    given = {"pixels": PIXELS | {"widths": [4]}, "keypoints": POINTS}[network]
    folder = made(tmp_path / "m", "dense.conv" if network == "pixels" else "dense.points", **given)
    inputs = {name: value for name, value in (GIVEN | change).items() if value is not None}
    with pytest.raises(Refused, match=told):
        find("network", f"dense.{network}").factory().pack(folder / "tokenizer", ASKED, answer, cell(inputs))


def test_what_is_no_class_is_said(tmp_path: Path) -> None:
    folder = made(tmp_path / "m", "dense.conv", **PIXELS, widths=[4])
    answer = "\n".join(["wall"] * 19 + ["roof"])
    packed = find("network", "dense.pixels").factory().pack(folder / "tokenizer", ASKED, answer, cell(GIVEN))
    assert packed.token_ids[-2:] == [1, -1] and "none of the student's outcomes" in packed.told


def test_a_model_without_a_head_of_pixels_and_a_tap_without_a_map_are_refused() -> None:
    picture = {"image": torch.zeros(1, 3, 8, 8)}
    told: dict[str, Any] = {"num_channels": 3, "num_labels": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    with pytest.raises(Refused, match="Conv has no head of one pixel called classifier"):
        Pixels().look(pictures.Conv(pictures.ConvConfig(widths=(4,), **told)), picture, ())

    class Flat(torch.nn.Module):
        def forward(self, seen: torch.Tensor) -> torch.Tensor:
            return seen.mean((2, 3))

    net = pictures.Map(pictures.MapConfig(widths=(4,), **told))
    net.flat = Flat()
    net.blocks[0].register_forward_hook(lambda module, given, output: net.flat(output) is None or None)
    with pytest.raises(Refused, match=r"the tap 'flat' is \[1, 4\] and no map of a picture"):
        Pixels().look(net, picture, ("flat",))


@pytest.mark.parametrize(("use", "given", "told"), [
    ("dense.conv", PIXELS | {"outcomes": ["a", "a"], "widths": [4]}, "each needs a name of its own"),
    ("dense.points", POINTS | {"parts": ["a", "?"]}, "none is '\\?'"),
])  # fmt: skip
def test_a_model_that_cannot_be_made_is_refused(use: str, given: dict, told: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=told):
        made(tmp_path / "m", use, **given)
