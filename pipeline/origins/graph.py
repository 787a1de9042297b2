"""Classifiers of nodes made here, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.backend import LOCAL
from pipeline.kinds.origin import Card, Origin, origin
from pipeline.model.folder import NETWORK, PLACES, finish
from pipeline.tables.graphs import UNKNOWN

Outcomes = Annotated[tuple[str, ...], Field(min_length=2)]
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]


@origin(gives=LOCAL, backend=NETWORK, network="graph.nodes")
def gcn(*, outcomes: Outcomes, numbers: PositiveInt, widths: Widths, seed: int, dropout: Dropout = 0.0) -> Origin:
    """A graph convolutional network: before each layer a node has the mean of its neighbours and itself.

    Paper: Kipf & Welling 2017 (arXiv 1609.02907).
    Differs: nothing.
    """
    return lambda out: _fresh(out, outcomes, numbers, widths, seed, dropout, linked=True)


@origin(gives=LOCAL, backend=NETWORK, network="graph.nodes")
def mlp(*, outcomes: Outcomes, numbers: PositiveInt, widths: Widths, seed: int, dropout: Dropout = 0.0) -> Origin:
    """Layers over the numbers of each node by itself: what a graph's network is distilled into, and knows no edge.

    Paper: Zhang et al. 2022 (GLNN, arXiv 2110.08727), the student.
    Differs: nothing.
    """
    return lambda out: _fresh(out, outcomes, numbers, widths, seed, dropout, linked=False)


@origin(gives=LOCAL, backend=NETWORK, network="graph.nodes")
def geometric(
    *,
    outcomes: Outcomes,
    numbers: PositiveInt,
    widths: Widths,
    seed: int,
    layer: Literal["GATConv", "GATv2Conv", "GCNConv", "GraphConv", "SAGEConv"] = "SAGEConv",
    dropout: Dropout = 0.0,
) -> Origin:
    """Layers of torch_geometric (`pip install 'stillhouse[graphs]'`), such as those of GraphSAGE.

    Paper: Hamilton et al. 2017 (GraphSAGE, arXiv 1706.02216); Velickovic et al. 2018 (GAT, arXiv 1710.10903).
    Differs: nothing.
    """

    def fill(out: Path) -> Card:
        from pipeline.nets.graphs import Geometric, GeometricConfig

        config = {"numbers": numbers, "widths": widths, "dropout": dropout, "num_labels": len(outcomes)}
        return _kept(out, outcomes, numbers, seed, Geometric, GeometricConfig(layer=layer, **config))

    return fill


def _fresh(
    out: Path, outcomes: Outcomes, numbers: int, widths: Widths, seed: int, dropout: float, *, linked: bool
) -> Card:
    from pipeline.nets.graphs import Nodes, NodesConfig

    config = NodesConfig(numbers=numbers, widths=widths, linked=linked, dropout=dropout, num_labels=len(outcomes))
    return _kept(out, outcomes, numbers, seed, Nodes, config)


def _kept(out: Path, outcomes: Outcomes, numbers: int, seed: int, net: Any, config: Any) -> Card:
    import torch

    names = sorted(outcomes)
    if len(set(names)) < len(names) or UNKNOWN in names:
        raise Refused(f"outcomes: each needs a name of its own, and none is {UNKNOWN!r}, which says that it is unknown")
    told = {"network": "graph.nodes", "outcomes": names, "inputs": {"x": [numbers]}}
    (out / PLACES).write_text(json.dumps(told, sort_keys=True) + "\n", "utf-8")
    torch.manual_seed(seed)
    net(config).save_pretrained(out)
    return finish(out, "float32")
