"""Parts of a model, as models of their own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

from pipeline.core.methods import find, lazy
from pipeline.errors import Refused
from pipeline.kinds.backend import card_of
from pipeline.kinds.builder import Builder, builder
from pipeline.kinds.origin import Card
from pipeline.model import heads
from pipeline.model.folder import TOKENIZER_FILES, finish, network_of

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@builder(bases=("language.masked", "classifier.text"), donors=(), keeps=False, random=False, finds=("network",))
def extracted(*, layers: PositiveInt = 1, width: PositiveInt = 8) -> Builder:
    """So many of the last layers of a BERT, with the first `width` numbers within each, as a smaller model: what
    `architecture.sampled` used of it.

    Paper: Xu et al. 2022 (AutoDistil, NeurIPS), a student that is taken out without being trained again.
    Differs: nothing.
    """

    def make(base: Path, donor: Path, out: Path, seed: int) -> Card:
        from pipeline.model.elastic import layers_of

        network = find("network", network_of(base / "tokenizer")).factory()
        net: Any = network.load(base, "float32")
        every, config = layers_of(net), net.config
        if layers > len(every) or width > config.intermediate_size:
            raise Refused(
                f"{base.name} has {len(every)} layers of {config.intermediate_size} numbers, and {layers} of {width} "
                f"are asked for; ask for no more than there are"
            )
        if heads.of(net):
            raise Refused(f"{base.name} has heads beside its own, which no part of it would have; extract before")
        net.base_model.encoder.layer = torch.nn.ModuleList(every[-layers:])
        for layer in net.base_model.encoder.layer:
            within, after = layer.intermediate.dense, layer.output.dense
            within.weight, within.bias = (torch.nn.Parameter(w[:width].clone()) for w in (within.weight, within.bias))
            after.weight = torch.nn.Parameter(after.weight[:, :width].clone())
        config.num_hidden_layers, config.intermediate_size = layers, width
        dtype = card_of(base)["dtype"]
        network.save(net.to(getattr(torch, dtype)), out)
        for file in TOKENIZER_FILES:
            if (base / file).exists():
                shutil.copyfile(base / file, out / file)
        return finish(out, dtype)

    return make
