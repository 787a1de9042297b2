"""Encoders that were trained to another end: a classifier begins with one, or with two."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.methods import find, lazy
from pipeline.errors import Refused
from pipeline.kinds.backend import card_of
from pipeline.kinds.builder import Builder, builder
from pipeline.kinds.origin import Card
from pipeline.model import heads
from pipeline.model.folder import PLACES, TOKENIZER_FILES, finish, network_of

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


@builder(bases=("classifier.image",), donors=("classifier.image",), keeps=False, random=True, finds=("network",))
def fused() -> Builder:
    """A classifier whose left half is the base's and right half the donor's, each without its head: it looks at
    pictures twice as wide, and a head of random weights reads both states.

    Paper: Jin 2024 (RveRNet, arXiv 2407.08257), a module for a region and one for what is around it, joined before
    the head.
    Differs: the head is one layer; both halves are as large.
    """

    def make(base: Path, donor: Path, out: Path, seed: int) -> Card:
        from pipeline.nets.pictures import Fused, FusedConfig

        told, other = (json.loads((each / PLACES).read_text("utf-8")) for each in (base, donor))
        network, net = _opened(base)
        second = _opened(donor)[1]
        normal = {name: getattr(net.config, name) for name in ("image_mean", "image_std", "num_channels")}
        if told != other or any(getattr(second.config, name) != value for name, value in normal.items()):
            raise Refused(
                f"{base.name} and {donor.name} do not look at pictures of one size, channels and outcomes, or not with "
                f"one mean and deviation; make both alike"
            )
        if heads.of(net) or heads.of(second):
            raise Refused(f"{base.name} or {donor.name} has heads beside its own, which no half can have")
        torch.manual_seed(seed)
        names = dict(enumerate(told["outcomes"]))
        labels = {"id2label": names, "label2id": {name: i for i, name in names.items()}}
        made = Fused(FusedConfig((net.config.to_dict(), second.config.to_dict()), **labels, **normal))
        for part, begins in zip(made.parts, (net, second), strict=True):
            weights = {name: w for name, w in begins.state_dict().items() if not name.startswith("classifier.")}
            part.load_state_dict(weights)
        high, wide, channels = told["inputs"]["image"]
        network.save(made, out)
        places = {**told, "inputs": {"image": [high, 2 * wide, channels]}}
        (out / PLACES).write_text(json.dumps(places, sort_keys=True) + "\n", "utf-8")
        return finish(out, "float32")

    return make


def _opened(folder: Path) -> tuple[Any, Any]:
    network = find("network", network_of(folder / "tokenizer")).factory()
    return network, network.load(folder, "float32")
