"""Graphs: the nodes' numbers and who has whom as its neighbour, checked before a model is shown them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import Refused


@dataclass(frozen=True)
class Graph:
    """x [M, F], edges [2, E], and the nodes [N] that are asked about."""

    x: np.ndarray
    edges: np.ndarray
    at: np.ndarray


def checked(graph: Graph) -> Graph:
    """The same graph, if its edges and what is asked about are nodes of it."""
    if graph.x.ndim != 2:
        raise Refused(f"has nodes `x` of the shape {list(graph.x.shape)}, and not a row of numbers for each")
    nodes = len(graph.x)
    if graph.edges.ndim != 2 or len(graph.edges) != 2:
        raise Refused(f"has edges of the shape {list(graph.edges.shape)}, and not two rows of nodes")
    wrong = np.argwhere((graph.edges < 0) | (graph.edges >= nodes))
    if len(wrong):
        edge = int(wrong[0][1])
        to, source = graph.edges[:, edge].tolist()
        raise Refused(f"has an edge to nowhere: edge {edge} is {to} - {source}, and there are nodes 0 to {nodes - 1}")
    if len(graph.at) == 0 or (np.diff(graph.at) <= 0).any() or graph.at[0] < 0 or graph.at[-1] >= nodes:
        raise Refused(f"asks about nodes (`at`) that are not ascending numbers from 0 to {nodes - 1}")
    return graph


# What a solution says of a node whose class it does not tell.
UNKNOWN = "?"


def nodes_row(graph: Graph, names: Sequence[str], learnt_M: np.ndarray) -> dict[str, object]:
    """A graph as the columns of a given row: the classes of the nodes that are asked about, a line each, and of those
    that are learnt as its solution, none if there are none."""
    asked = [int(node) for node in graph.at]
    told = [names[node] if learnt_M[node] else UNKNOWN for node in asked]
    inputs = {"x": graph.x.astype(np.float32), "edges": graph.edges.astype(np.int32), "at": graph.at.astype(np.int32)}
    return {
        "inputs": inputs,
        "verifier": "graph.nodes",
        "reference": "\n".join(names[node] for node in asked),
        "solution": "\n".join(told) if learnt_M[graph.at].any() else None,
    }
