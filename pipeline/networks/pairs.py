"""Networks of pairs: two vectors of one thing, such as what a text and what its readers say of it, are made one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.core.methods import lazy
from pipeline.errors import Refused
from pipeline.kinds.network import Network, network
from pipeline.model import heads
from pipeline.model.folder import PLACES
from pipeline.networks.classifier import GIVES, Named
from pipeline.tables.ids import Cell
from pipeline.tables.tensors import arrays

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

ONE, OTHER = "one", "other"


@network(takes=(ONE, OTHER), gives=GIVES, heads=("main",), backend="network.local")
def encoder() -> Network:
    """Two vectors of one thing, the inputs `one` and `other`, to one and the name of a class: the place is the thing.

    What is made of either is the tap `one` or `other`, of both `last`.

    Paper: PRORec 2025 (arXiv 2502.06269), the item encoder over collaborative and semantic vectors.
    Differs: the words of a prompt are not read.
    """
    return Encoder()


class Encoder(Named):
    """See `encoder`."""

    apart = True

    def asked(self, form: Path, messages: Sequence[dict[str, str]], inputs: Cell | None = None) -> Any:
        """The two vectors that are asked about."""
        both, told = self.shown(inputs), json.loads((form / PLACES).read_text("utf-8"))["inputs"]
        for name, vector in zip((ONE, OTHER), both, strict=True):
            if list(vector.shape) != told[name]:
                raise Refused(f"has {len(vector)} numbers in {name!r}, and the model reads {told[name][0]}")
        return both

    def load(self, folder: Path, dtype: str) -> torch.nn.Module:
        from pipeline.nets.kept import opened
        from pipeline.nets.pairs import Pair

        net = opened(folder, Pair, dtype)
        heads.load(net, folder)
        return net

    def collate(self, rows: pa.Table) -> dict[str, torch.Tensor]:
        """one [B, F] and other [B, G]."""
        return self.batch([self.shown(given) for given in rows["inputs"].to_pylist()])

    def shown(self, given: Cell | None) -> tuple[np.ndarray, np.ndarray]:
        """The two vectors that `inputs` hold."""
        found: dict[str, Any] = dict(arrays(given or []))
        for name in (ONE, OTHER):
            if name not in found:
                names = ", ".join(found) or "nothing but words"
                raise Refused(f"is about {names}, and a network of pairs needs an input called {name!r}")
            value = found[name]
            if isinstance(value, bytes) or value.ndim != 1 or value.dtype.kind != "f":
                raise Refused(f"has an input {name!r} that is no vector of real numbers")
        return found[ONE], found[OTHER]

    def batch(self, read: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, torch.Tensor]:
        """What `look` needs of pairs."""
        both = zip((ONE, OTHER), zip(*read, strict=True), strict=True)
        return {name: torch.from_numpy(np.stack(vectors).astype(np.float32)) for name, vectors in both}

    def given(self, net: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: inputs[name].to(net.dtype) for name in (ONE, OTHER)}
