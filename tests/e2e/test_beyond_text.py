"""The walkthrough of docs/beyond-text.md: pictures with a ViT of the user's own, and a graph, to the report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from PIL import Image

from pipeline.contracts import EVALS
from pipeline.sources.graphs import blocks
from pipeline.sources.shapes import one
from pipeline.tables.parquet import Scan
from tests.e2e.brought import metrics
from tests.e2e.conftest import ROOT, Workspace, make_workspace

pytestmark = pytest.mark.e2e

PAGE = (ROOT / "docs" / "beyond-text.md").read_text("utf-8")
ENTRIES = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)]
NAMES = ("square", "ring", "cross", "bars")
DRAWN: dict[str, Any] = {"size": 20, "channels": 3, "shapes": NAMES, "noise": 25.0}


def bring(own: Path) -> None:
    """Pictures of 20 x 20 in a folder a class, a ViT that knows them, and a graph."""
    for split, seed, rows in (("train", 1, 160), ("test", 2, 80)):
        for number, row in enumerate(one(rows=rows, seed=seed, **DRAWN)):
            place = own / "pictures" / split / str(row.columns["reference"]) / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(row.columns["inputs"]["image"]).save(place)  # type: ignore[index]
    vit(own / "vit")
    [graph] = blocks(rows=1, seed=3, nodes=90, classes=3, numbers=6, noise=2.0, within=0.15, between=0.01)
    inputs: Any = graph.columns["inputs"]
    classes = [{"block 0": "a", "block 1": "b", "block 2": "c"}[n] for n in str(graph.columns["reference"]).split("\n")]
    test = np.arange(90) % 2 == 1
    train = np.arange(90) % 6 == 0
    np.savez(
        own / "graph.npz", x=inputs["x"], edge_index=inputs["edges"], y=np.array(classes), train_mask=train,
        test_mask=test,
    )  # fmt: skip


def vit(folder: Path) -> None:
    """A ViT with random weights whose head is fitted to the states of drawn pictures."""
    torch.manual_seed(0)
    names = dict(enumerate(NAMES))
    config = transformers.ViTConfig(
        image_size=16, patch_size=4, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, intermediate_size=128,
        id2label=names, label2id={name: i for i, name in names.items()},
    )  # fmt: skip
    net = transformers.ViTForImageClassification(config).eval()
    with torch.no_grad():
        # Attention that is nearly even sees the whole picture, and patches are told apart by larger weights.
        net.vit.embeddings.patch_embeddings.projection.weight.mul_(10)
        rows = list(one(rows=1200, seed=4, **DRAWN))
        images = [Image.fromarray(r.columns["inputs"]["image"]).resize((16, 16), 2) for r in rows]  # type: ignore[index]
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2) / 127.5 - 1
        states = net.vit(pixels).last_hidden_state[:, 0].double()
        wide = torch.cat([states, torch.ones(len(states), 1)], 1)
        target = torch.eye(4)[[NAMES.index(str(r.columns["reference"])) for r in rows]].double()
        head = torch.linalg.solve(wide.T @ wide + 1e-3 * torch.eye(65), wide.T @ target).float() * 6
        net.classifier.weight.copy_(head[:-1].T)
        net.classifier.bias.copy_(head[-1])
    net.save_pretrained(folder)


def change(params: dict[str, Any]) -> None:
    """The page's entries and nothing else."""
    params.clear()
    params["run"] = {"executor": "inline"}
    params["seed"] = 17
    for entries in ENTRIES:
        for section, named in entries.items():
            params.setdefault(section, {}).update(named)


@pytest.fixture(scope="module")
def walked(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = make_workspace(tmp_path_factory.mktemp("beyond") / "repo", env, change)
    bring(workspace.data / "own")
    workspace.repro()
    return workspace


def test_pictures_end_in_a_report(walked: Workspace) -> None:
    found = metrics(walked)
    assert set(found) == {"teacher", "sft", "kd", "moved", "gcn_taught", "mlp_alone", "ffg2m"}
    assert found["teacher"]["accuracy"] > 0.6 and found["teacher"]["n"] == 80
    for name in ("sft", "kd", "moved"):
        assert found[name]["accuracy"] > 0.4 and 0 <= found[name]["ece"] <= 1
        assert found[name]["agreement_with_teacher"] > 0.4
    told = json.loads((walked.data / "models" / "kd" / "tokenizer" / "places.json").read_text("utf-8"))
    assert told == {"network": "classifier.image", "outcomes": sorted(NAMES), "inputs": {"image": [16, 16, 3]}}
    page = (walked.data / "reports" / "report.html").read_text("utf-8")
    assert "moved" in page and "ffg2m" in page
    # Twelve pictures of each of the two pools that have some.
    assert page.count('<img src="data:image/png;base64,') == 24
    assert walked.repro() == []


def test_a_graph_is_judged_node_by_node(walked: Workspace) -> None:
    found = metrics(walked)
    assert found["ffg2m"]["n"] == 45 and found["gcn_taught"]["accuracy"] > 0.6
    rows = Scan(EVALS, (walked.data / "evals" / "ffg2m",)).pylist()
    assert {row["prediction"] for row in rows} <= {"a", "b", "c"} and len({row["item_id"] for row in rows}) == 45
    assert np.mean([row["metric"] for row in rows]) == pytest.approx(found["ffg2m"]["accuracy"], abs=1e-6)
