"""Graphs with a class for every node, drawn by a procedure."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.source import GivenRow, Rows, source
from pipeline.tables import ids
from pipeline.tables.graphs import Graph, nodes_row

Share = Annotated[float, Field(ge=0, le=1)]


@source(verifiers=("graph.nodes",))
def blocks(
    *,
    rows: PositiveInt,
    seed: int,
    nodes: Annotated[int, Field(ge=4)] = 240,
    classes: Annotated[int, Field(ge=2)] = 4,
    numbers: PositiveInt = 8,
    within: Share = 0.06,
    between: Share = 0.005,
    noise: NonNegativeFloat = 2.0,
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    labelled: Share = 0.3,
    take: Literal["train", "held_out", "all"] = "all",
) -> Rows:
    """Stochastic block models: a node's class decides by chance whom it is linked with, and the mean of its numbers.

    Two nodes are linked with the probability `within` if they are of one class, else `between`: with more between than
    within, neighbours differ. The classes' means are drawn once for all graphs of a seed's procedure, a node's numbers
    lie around its own with the standard deviation `noise`. A share of `held_out` nodes is asked about by
    `take: held_out`, the others by `train`; of these a share is `labelled`, whose classes the solution names.

    Paper: Holland et al. 1983 (stochastic block models); Wu et al. 2023 (FF-G2M) teaches on citation graphs.
    Differs: nothing to differ from.
    """
    if nodes < 2 * classes:
        raise Refused(f"graphs.blocks: {nodes} nodes are too few for {classes} classes; ask for {2 * classes} or more")
    means_CF = ids.generator(0, "graphs.blocks", classes, numbers).standard_normal((classes, numbers))
    for number in range(rows):
        dice = ids.generator(seed, "graphs.blocks", number)
        class_M = dice.permutation(np.arange(nodes) % classes)
        x_MF = means_CF[class_M] + noise * dice.standard_normal((nodes, numbers))
        chance_MM = np.where(class_M[:, None] == class_M, within, between)
        linked_MM = np.triu(dice.random((nodes, nodes)) < chance_MM, 1)
        edges_2E = np.stack(np.nonzero(linked_MM | linked_MM.T))
        tested_M = dice.random(nodes) < held_out
        learnt_M = ~tested_M & (dice.random(nodes) < labelled)
        at = np.flatnonzero({"train": ~tested_M, "held_out": tested_M, "all": np.ones(nodes, bool)}[take])
        names = [f"block {c}" for c in class_M]
        row = nodes_row(Graph(x_MF, edges_2E, at), names, learnt_M)
        yield GivenRow(f"graphs.blocks seed {seed} row {number}", row)
