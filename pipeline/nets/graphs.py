"""Models of the nodes of a graph.

Imports torch: whoever only names a method must not import it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from pipeline.nets.library import library


class NodesConfig(PretrainedConfig):
    """What a `Nodes` is made of; one that is `linked` is a graph convolutional network, another is an MLP."""

    model_type = "stillhouse-nodes"

    def __init__(
        self,
        numbers: int = 1,
        widths: tuple[int, ...] = (16,),
        linked: bool = True,
        dropout: float = 0.0,
        **others: Any,
    ) -> None:
        self.numbers, self.widths, self.linked, self.dropout = numbers, list(widths), linked, dropout
        super().__init__(**others)


class Nodes(PreTrainedModel):
    """Linear layers over the numbers of every node, with the mean over its neighbours and itself before each if it is
    linked: the sum of theirs over the root of both their numbers of neighbours (Kipf & Welling 2017)."""

    config_class = NodesConfig
    main_input_name = "x"

    def __init__(self, config: NodesConfig) -> None:
        super().__init__(config)
        widths = [config.numbers, *config.widths]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.classifier = nn.Linear(widths[-1], config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as torch makes them."""

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Logits [M, V] of nodes x [M, F], of which edges [2, E] say who has which neighbour."""
        seen, near = x, self._near(len(x), edges)
        for layer in self.layers:
            seen = nn.functional.relu(layer(_around(seen, near)))
            seen = nn.functional.dropout(seen, self.config.dropout, self.training)
        return self.classifier(_around(seen, near))

    def _near(self, nodes: int, edges: torch.Tensor) -> torch.Tensor | None:
        """What share of each node every node has, as a sparse matrix [M, M]; none if edges mean nothing."""
        if not self.config.linked:
            return None
        own = torch.arange(nodes, device=edges.device)
        both = torch.cat([edges, own.expand(2, -1)], 1)
        root = torch.bincount(both[0], minlength=nodes).float().rsqrt()
        # Not checked: `networks/graph.py` refuses an edge to nowhere.
        return torch.sparse_coo_tensor(both, root[both].prod(0), (nodes, nodes), check_invariants=False)


def _around(seen: torch.Tensor, near: torch.Tensor | None) -> torch.Tensor:
    """What every node has of those around it, [M, D]."""
    # There is no such product in half precision.
    return seen if near is None else torch.sparse.mm(near, seen.float()).to(seen.dtype)


class GeometricConfig(NodesConfig):
    """What a `Geometric` is made of; `layer` is the name of a layer of torch_geometric."""

    model_type = "stillhouse-geometric"

    def __init__(self, layer: str = "SAGEConv", **others: Any) -> None:
        self.layer = layer
        super().__init__(**others)


class Geometric(Nodes):
    """Layers of torch_geometric over the numbers of every node and those of its neighbours, and a linear head."""

    config_class = GeometricConfig  # type: ignore[assignment]

    def __init__(self, config: GeometricConfig) -> None:
        super().__init__(config)
        make = getattr(library("torch_geometric.nn", "graphs"), config.layer)
        self.layers = nn.ModuleList(make(i, o) for i, o in pairwise([config.numbers, *config.widths]))

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Logits [M, V] of nodes x [M, F], of which edges [2, E] say who has which neighbour."""
        seen = x
        for layer in self.layers:
            # There an edge goes from a neighbour to the node that hears of it.
            seen = nn.functional.relu(layer(seen, edges.flip(0)))
            seen = nn.functional.dropout(seen, self.config.dropout, self.training)
        return self.classifier(seen)
