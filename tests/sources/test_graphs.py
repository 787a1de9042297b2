"""Graphs: drawn, read from files, refused by name, asked about, and judged node by node."""

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
from pipeline.kinds.backend import GenerateRequest, Sampling, Tokens, Want, open_model
from pipeline.stages.evaluate import Params as Evaluate
from pipeline.tables import tensors
from pipeline.tables.parquet import Scan
from pipeline.tables.tensors import arrays, cell
from tests.stages.ingesting import ingest

X = np.arange(10, dtype=np.float32).reshape(5, 2)
EDGES = np.array([[0, 1, 3], [1, 2, 4]])
Y = np.array(["a", "b", "a", "b", "b"])
TEST = np.array([0, 0, 1, 0, 1], bool)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def saved(**changed: Any) -> str:
    given = {"x": X, "edge_index": EDGES, "y": Y, "test_mask": TEST, **changed}
    np.savez("graph.npz", **{name: value for name, value in given.items() if value is not None})
    return "graph.npz"


def read(**arguments: Any) -> list[Any]:
    path = arguments.pop("path", None) or saved()
    return list(find("source", "files.graph").factory(path=path, **arguments))


def test_a_file_asks_about_two_kinds_of_nodes() -> None:
    [train], [held] = read(take="train"), read(take="held_out")
    assert train.columns["reference"] == train.columns["solution"] == "a\nb\nb" and held.columns["solution"] is None
    assert held.columns["reference"] == "a\nb" and held.columns["inputs"]["at"].tolist() == [2, 4]
    assert train.columns["inputs"]["edges"].T.tolist() == [[0, 1], [1, 0], [1, 2], [2, 1], [3, 4], [4, 3]]
    [one_way] = read(undirected=False)
    assert one_way.columns["inputs"]["edges"].tolist() == EDGES.tolist()
    [some] = read(path=saved(train_mask=np.array([1, 0, 1, 0, 0], bool)), take="train")
    assert some.columns["solution"] == "a\n?\n?", "a node that is held out is not told"


def test_a_row_of_parquet_is_a_graph() -> None:
    row = {"x": X.tolist(), "edge_index": EDGES.tolist(), "y": Y.tolist()}
    pq.write_table(pa.Table.from_pylist([row, row]), "graphs.parquet")
    assert [row.columns["reference"] for row in read(path="graphs.parquet")] == ["a\nb\na\nb\nb"] * 2


@pytest.mark.parametrize(("changed", "said"), [
    ({"edge_index": np.array([[0], [5]])}, "has an edge to nowhere: edge . is . - ., and there are nodes 0 to 4"),
    ({"edge_index": np.array([0, 1])}, "has edges of the shape"),
    ({"edge_index": None}, "is a graph without `edges`"),
    ({"y": None}, "is a graph without a class `y` for each of its nodes"),
    ({"y": Y[:3]}, "is a graph without a class `y` for each of its nodes"),
    ({"test_mask": np.ones(5, bool)}, "asks about nodes"),
    ({"test_mask": np.ones(4, bool)}, "has a `test_mask` of the shape"),
    ({"x": X[:, 0]}, "has nodes `x` of the shape"),
    ({"x": np.full((5, 2), np.nan)}, "not finite"),
])  # fmt: skip
def test_a_bad_graph_is_named_by_its_file(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=rf"1 of 1 rows cannot be used(.|\n)*{said}(.|\n)*graph.npz"):
        ingest(use="files.graph", path=saved(**changed), take="train")


def test_a_pickle_is_refused() -> None:
    Path("graph.pt").write_bytes(b"\x80\x04")
    with pytest.raises(Refused, match=r"graph\.pt is a pickle, which may run programs"):
        read(path="graph.pt")


def test_a_graph_above_what_a_cell_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "MOST", 32)
    with pytest.raises(Refused, match="more than a cell may hold"):
        ingest(use="files.graph", path=saved())


def blocks(**arguments: Any) -> list[dict[str, Any]]:
    found = find("source", "graphs.blocks").factory(**{"rows": 2, "seed": 3, "nodes": 80, **arguments})
    return [dict(row.columns) for row in found]


def alike(row: dict[str, Any]) -> float:
    """The share of the edges of a whole graph whose ends are of one class."""
    names = np.array(row["reference"].split("\n"))
    to, source = row["inputs"]["edges"]
    return float((names[to] == names[source]).mean())


def test_blocks_turn_by_their_knobs() -> None:
    assert alike(blocks()[0]) > 0.6 > 0.4 > alike(blocks(within=0.01, between=0.06)[0])
    train, held = blocks(take="train")[0], blocks(take="held_out")[0]
    assert not set(train["inputs"]["at"].tolist()) & set(held["inputs"]["at"].tolist())
    np.testing.assert_array_equal(train["inputs"]["x"], held["inputs"]["x"])
    assert held["solution"] is None and 0 < train["solution"].count("block") < train["reference"].count("block")
    assert blocks(take="train", labelled=1.0)[0]["solution"] == train["reference"]
    assert blocks(noise=0.1)[0]["inputs"]["x"].std() < blocks(noise=5)[0]["inputs"]["x"].std()
    with pytest.raises(Refused, match="5 nodes are too few for 3 classes"):
        blocks(nodes=5, classes=3)


MADE = {"outcomes": ["b", "a"], "numbers": 2, "widths": [8], "seed": 1}


def model(name: str = "m", use: str = "graph.gcn", **changed: Any) -> Path:
    folder = Path("data/models", name)
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps(find("origin", use).factory(**{**MADE, **changed})(folder)), "utf-8")
    return folder


def test_every_node_is_answered_and_read() -> None:
    folder, [given] = model(), read(take="train")
    inputs, how = cell(given.columns["inputs"]), How(RunSettings(device="cpu"), Path("work"), "generate@teacher")
    network = find("network", "graph.nodes").factory()
    packed = network.pack(folder / "tokenizer", [], "a\n?\nb", inputs)
    assert packed.token_ids == [0, -1, 1] and packed.spans == [(0, 3)] and packed.told == ""
    assert "none of the student's outcomes" in network.pack(folder / "tokenizer", [], "a\nc\nb", inputs).told
    with open_model(folder, how) as opened:
        [answer] = opened.generate([GenerateRequest("r", "p", [], 0, 0, inputs=inputs)], Sampling(0.0, 1.0, 8))
        [reading] = opened.read([Tokens("e", packed.token_ids, [0, 2], inputs)], Want(top_k=2, taps=("last",)))
    assert len(answer.content.split("\n")) == len(answer.logprobs) == 3
    best = [["a", "b"][i] for i in reading.topk_ids[:, 0]]
    assert best == [answer.content.split("\n")[0], answer.content.split("\n")[2]]
    assert reading.features["last"].shape == (2, 8) and reading.target_logprob.shape == (2,)
    np.testing.assert_allclose(np.exp(reading.topk_logprobs).sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize(("inputs", "answer", "said"), [
    ({"x": X, "edges": EDGES}, "a\nb", "is about 5 nodes, and its answer has 2 lines"),
    ({"x": X[:, :1], "edges": EDGES}, "a", "whose nodes have 1 numbers, and the model reads 2"),
    ({"edges": EDGES}, "a", "is about edges, and a network of nodes needs an input called 'x'"),
    ({"x": X, "edges": EDGES.astype(np.float32)}, "a", "input 'edges' that is no table of whole numbers"),
    ({"x": X, "edges": EDGES + 3}, "a", "has an edge to nowhere"),
    ({"x": X, "edges": EDGES, "at": np.array([2, 1])}, "a", "asks about nodes"),
    (None, "a", "is about nothing but words"),
])  # fmt: skip
def test_what_a_network_of_nodes_cannot_look_at_is_refused(inputs: dict | None, answer: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        find("network", "graph.nodes").factory().pack(model() / "tokenizer", [], answer, inputs and cell(inputs))


def test_an_outcome_that_means_unknown_is_refused() -> None:
    with pytest.raises(Refused, match=r"none is '\?'"):
        model(outcomes=["a", "?"])


def test_an_evaluation_has_a_row_for_every_node_with_a_class() -> None:
    [row] = ingest(use="files.graph", path=saved(), take="train")
    model()
    params = Evaluate.model_validate({"model": "m", "pool": "train"})
    inputs = {"prompts": ["prompts/train/mine"], "model": ["models/m"]}
    run_instance(
        Instance("evaluate", "m", params, inputs, "evals/m", ""), RunSettings(device="cpu"), Path("data"), Path()
    )
    found = Scan(EVALS, (Path("data/evals/m"),)).pylist()
    assert [r["item_id"] for r in sorted(found, key=lambda r: r["item_id"])] == [
        f"{row['prompt_id']}/{i}" for i in range(3)
    ]
    assert all(r["metric"] == float(r["prediction"] == r["target"]) and 0.5 <= r["confidence"] <= 1 for r in found)
    assert arrays(row["inputs"])["at"].tolist() == [0, 1, 3]
