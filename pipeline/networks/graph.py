"""Networks of graphs: the nodes that are asked about are named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.core.methods import lazy
from pipeline.errors import Refused
from pipeline.kinds.network import LINKS, Network, Packed, Seen, network
from pipeline.model import heads
from pipeline.model.folder import PLACES
from pipeline.networks.classifier import AGAIN, Named
from pipeline.tables.graphs import UNKNOWN, Graph, checked
from pipeline.tables.ids import Cell
from pipeline.tables.tensors import arrays

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@network(takes=("x", "edges"), gives=(*AGAIN, LINKS), heads=("main",), backend="network.local")
def nodes() -> Network:
    """A classifier of nodes: places are the nodes that are asked about, links the edges between them.

    Inputs are `x` [nodes, numbers], `edges` [2, edges], of which row 0 has row 1 as its neighbour, and `at`, the nodes
    that are asked about, in ascending order; all are if there is none. An answer has a line for each.

    Paper: Kipf & Welling 2017 (graph convolutional networks, arXiv 1609.02907).
    Differs: the words of a prompt are not read.
    """
    return Nodes()


class Nodes(Named):
    """See `nodes`."""

    def asked(self, form: Path, messages: Sequence[dict[str, str]], inputs: Cell | None = None) -> Graph:
        """The graph that is asked about."""
        graph = self.shown(inputs)
        [numbers] = json.loads((form / PLACES).read_text("utf-8"))["inputs"]["x"]
        if graph.x.shape[1] != numbers:
            raise Refused(f"is a graph whose nodes have {graph.x.shape[1]} numbers, and the model reads {numbers}")
        return graph

    def pack(self, form: Path, messages: Sequence[dict[str, str]], answer: str, inputs: Cell | None = None) -> Packed:
        graph, lines = self.asked(form, messages, inputs), answer.split("\n")
        if len(lines) != len(graph.at):
            raise Refused(
                f"is about {len(graph.at)} nodes, and its answer has {len(lines)} lines; it needs one for each"
            )
        targets = [self.target(form, line) for line in lines]
        unknown = sum(target < 0 and line.strip() != UNKNOWN for target, line in zip(targets, lines, strict=True))
        told = "has nodes that are none of the student's outcomes, so their places are unknown" if unknown else ""
        return Packed(targets, [(0, len(targets))], told=told)

    def places(self, shown: Graph) -> int:
        return len(shown.at)

    def length(self, shown: Graph) -> int | None:
        """No token is read."""
        return None

    def load(self, folder: Path, dtype: str) -> torch.nn.Module:
        from pipeline.nets.graphs import Nodes
        from pipeline.nets.kept import opened

        net = opened(folder, Nodes, dtype)
        heads.load(net, folder)
        return net

    def collate(self, rows: pa.Table) -> dict[str, torch.Tensor]:
        """One graph of all: x [M, F], edges [2, E], at [N] and the links between these."""
        return self.batch([self.shown(given) for given in rows["inputs"].to_pylist()])

    def shown(self, given: Cell | None) -> Graph:
        """The graph that `inputs` hold."""
        found: dict[str, Any] = dict(arrays(given or []))
        for name, numbers in (("x", "f"), ("edges", "i")):
            if name not in found:
                names = ", ".join(found) or "nothing but words"
                raise Refused(f"is about {names}, and a network of nodes needs an input called {name!r}")
            if isinstance(found[name], bytes) or found[name].ndim != 2 or found[name].dtype.kind != numbers:
                raise Refused(
                    f"has an input {name!r} that is no table of {'real' if numbers == 'f' else 'whole'} numbers"
                )
        graph = Graph(found["x"], found["edges"], found.get("at", np.arange(len(found["x"]))))
        return checked(graph)

    def batch(self, read: Sequence[Graph]) -> dict[str, torch.Tensor]:
        """What `look` needs of graphs."""
        starts = np.cumsum([0, *(len(graph.x) for graph in read)])
        edges = np.concatenate([graph.edges + start for graph, start in zip(read, starts, strict=False)], 1)
        at = np.concatenate([graph.at + start for graph, start in zip(read, starts, strict=False)])
        place = np.full(starts[-1], -1)
        place[at] = np.arange(len(at))
        links = place[edges]
        given = {"edges": edges, "at": at, LINKS: links[:, (links >= 0).all(0)]}
        whole = {name: torch.from_numpy(value.astype(np.int64)) for name, value in given.items()}
        return {"x": torch.from_numpy(np.concatenate([graph.x for graph in read]).astype(np.float32)), **whole}

    def given(self, net: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"x": inputs["x"].to(net.dtype), "edges": inputs["edges"]}

    def look(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], taps: Sequence[str]) -> Seen:
        """`last` is what the head is given; a module's tap is its output at the nodes that are asked about."""
        seen, at = super().look(model, inputs, taps), inputs["at"]
        return Seen(seen.states_ND[at], seen.heads, {name: value[at] for name, value in seen.features.items()})

    def put(
        self, output: torch.Tensor, inputs: Mapping[str, torch.Tensor], make: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        return output.index_copy(0, inputs["at"], make(output[inputs["at"]]))
