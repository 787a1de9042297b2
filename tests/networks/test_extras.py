"""Models whose layers are of libraries that are extras: looked at as any others, and refused by name without them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipeline.core.methods import find  # noqa: E402
from pipeline.core.run import How  # noqa: E402
from pipeline.core.settings import RunSettings  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.kinds.backend import GenerateRequest, Sampling, open_model  # noqa: E402
from pipeline.tables.tensors import arrays, cell  # noqa: E402

UNET: dict[str, Any] = {"size": [8, 8], "widths": [8, 16], "groups": 4, "steps": 2, "seed": 1}
GRAPH: dict[str, Any] = {"outcomes": ["a", "b"], "numbers": 2, "widths": [8], "seed": 1}


def made(folder: Path, use: str, given: dict[str, Any]) -> Path:
    folder.mkdir()
    method = find("origin", use)
    card = method.factory(**method.arguments.model_validate(given).model_dump())(folder)
    (folder / "model.json").write_text(json.dumps(card), "utf-8")
    return folder


def answered(folder: Path, inputs: dict[str, np.ndarray], place: Path) -> Any:
    request = GenerateRequest("r", "p", [], 0, 0, inputs=cell(inputs))
    with open_model(folder, How(RunSettings(device="cpu"), place, "generate@m")) as opened:
        [answer] = opened.generate([request], Sampling(0.0, 1.0, 8))
    return answer


@pytest.mark.parametrize(("use", "given", "library", "extra"), [
    ("diffusion.unet", UNET, "diffusers", "diffusion"),
    ("graph.geometric", GRAPH, "torch_geometric", "graphs"),
])  # fmt: skip
def test_without_its_library_a_model_says_what_to_install(
    use: str, given: dict[str, Any], library: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, f"{library}.nn", None)
    with pytest.raises(Refused, match=rf"{library}.* is not installed.*stillhouse\[{extra}\]"):
        made(tmp_path / "m", use, given)


def test_diffusers_unet_makes_pictures(tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="diffusers, the extra `diffusion`, is not installed")
    folder = made(tmp_path / "m", "diffusion.unet", UNET)
    noise = np.random.default_rng(0).standard_normal((3, 1, 8, 8)).astype(np.float32)
    answer = answered(folder, {"noise": noise}, tmp_path)
    assert answer.content == "image 3 x 1 x 8 x 8"
    network = find("network", "images.denoiser").factory()
    net = network.load(folder, "float32")
    with torch.no_grad():
        seen = network.look(net, network.batch([noise]), ("last", "unet.mid_block"))
        once = net(torch.from_numpy(noise), torch.ones(3))
    torch.testing.assert_close(seen.heads["main"](seen.states_ND), once.flatten(1), rtol=1e-4, atol=1e-5)
    assert seen.features["unet.mid_block"].shape[0] == 3
    assert not np.allclose(arrays(answer.outputs)["image"], once.numpy()), "two steps are not one"


@pytest.mark.parametrize("layer", ["GATConv", "GATv2Conv", "GCNConv", "GraphConv", "SAGEConv"])
def test_layers_of_torch_geometric_name_nodes(layer: str, tmp_path: Path) -> None:
    """A node hears of those that an edge says are its neighbours, and not the other way round."""
    pytest.importorskip("torch_geometric", reason="torch_geometric, the extra `graphs`, is not installed")
    folder = made(tmp_path / "m", "graph.geometric", {**GRAPH, "layer": layer})
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    given = {"x": x, "edges": np.array([[0], [1]])}
    assert len(answered(folder, given, tmp_path).content.split("\n")) == 3
    network = find("network", "graph.nodes").factory()
    net = network.load(folder, "float32")

    def logits(x: np.ndarray) -> torch.Tensor:
        with torch.no_grad():
            seen = network.look(net, network.batch([network.shown(cell({**given, "x": x}))]), ("layers.0",))
            assert seen.features["layers.0"].shape == (3, 8)
            return seen.heads["main"](seen.states_ND)

    other = x.copy()
    other[1] += 5
    moved = (logits(other) - logits(x)).abs().sum(1) > 1e-6
    assert moved.tolist() == [True, True, False]
