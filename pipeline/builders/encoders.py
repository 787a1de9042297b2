"""Encoders that were trained to another end: a classifier begins with one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.methods import find, lazy
from pipeline.errors import Refused
from pipeline.kinds.backend import card_of
from pipeline.kinds.builder import Builder, builder
from pipeline.kinds.origin import Card
from pipeline.model.folder import TOKENIZER_FILES, finish, network_of

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@builder(
    bases=("classifier.image", "classifier.text"),
    donors=("masked.patches", "language.masked"),
    keeps=False,
    random=False,
    finds=("network",),
)
def taken() -> Builder:
    """The base, a classifier, with the weights of the donor's encoder in place of its own; its head stays.

    What only one of both has, as the vector that hides a patch, is left where it is. A linear probe trains the head
    alone then: `trainable: [classifier]`.

    Paper: Devlin et al. 2019 (BERT, arXiv 1810.04805), pre-training and fine-tuning; Alain & Bengio 2016 (linear
    probes, arXiv 1610.01644).
    Differs: nothing.
    """

    def make(base: Path, donor: Path, out: Path, seed: int) -> Card:
        network, net = _opened(base)
        own, given = net.base_model.state_dict(), _opened(donor)[1].base_model.state_dict()
        shared = {name: weight for name, weight in given.items() if name in own}
        strange = next((name for name, weight in shared.items() if weight.shape != own[name].shape), None)
        if strange is not None or not shared:
            raise Refused(
                f"the encoder of {donor.name} is not as large as that of {base.name}"
                f"{f': {strange} differs' if strange else ''}; make both with the same width, layers and sizes"
            )
        net.base_model.load_state_dict({**own, **shared})
        dtype = card_of(base)["dtype"]
        network.save(net.to(getattr(torch, dtype)), out)
        for file in TOKENIZER_FILES:
            if (base / file).exists():
                shutil.copyfile(base / file, out / file)
        return finish(out, dtype)

    return make


def _opened(folder: Path) -> tuple[Any, Any]:
    network = find("network", network_of(folder / "tokenizer")).factory()
    return network, network.load(folder, "float32")
