"""Networks of whose places some are hidden, and what stands there is to be found from the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.core.methods import lazy
from pipeline.errors import Refused
from pipeline.kinds.network import HIDDEN, Network, Packed, Seen, network
from pipeline.model import heads
from pipeline.model.folder import PLACES
from pipeline.model.taps import Taps
from pipeline.networks.classifier import GIVES, IMAGE, Image
from pipeline.tables.ids import Cell
from pipeline.tables.lists import whole
from pipeline.tables.tensors import arrays, cell, stacked

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@network(takes=(IMAGE, HIDDEN), gives=GIVES, heads=("main",), backend="network.local")
def patches() -> Network:
    """An encoder of pictures: places are its patches, row by row, of which an augmentation such as `masks.places` hides
    some in every step.

    The one outcome, `patch`, stands at a patch that is hidden and is unknown at one that is seen, so a term looks at
    those with `where: labelled` and at these with `where: unlabelled`. Nothing is hidden when the model is read.

    Paper: Xie et al. 2022 (SimMIM, arXiv 2111.09886); He et al. 2022 (MAE, arXiv 2111.06377).
    Differs: as in SimMIM, and unlike in MAE, the encoder reads a learnt vector where a patch is hidden; what makes a
    patch of a state is an objective's own.
    """
    return Patches()


class Parted(NamedTuple):
    """A picture [H, W, C], and for each of its patches 0, that it is seen."""

    image: np.ndarray
    hidden: np.ndarray


class Patches(Image):
    """See `patches`."""

    apart = False

    def asked(self, form: Path, messages: Sequence[dict[str, str]], inputs: Cell | None = None) -> Any:
        image = super().asked(form, messages, inputs)
        size = json.loads((form / PLACES).read_text("utf-8"))["patch"]
        return Parted(image, np.zeros((image.shape[0] // size) * (image.shape[1] // size), np.uint8))

    def pack(self, form: Path, messages: Sequence[dict[str, str]], answer: str, inputs: Cell | None = None) -> Packed:
        image, hidden = self.asked(form, messages, inputs)
        return Packed([0] * len(hidden), [(0, len(hidden))], cell({IMAGE: image, HIDDEN: hidden}))

    def places(self, shown: Parted) -> int:
        return len(shown.hidden)

    def load(self, folder: Path, dtype: str) -> torch.nn.Module:
        from pipeline.nets.kept import opened
        from pipeline.nets.pictures import Patches

        net = opened(folder, Patches, dtype)
        heads.load(net, folder)
        return net

    def shown(self, given: Cell | None) -> Any:
        hidden = arrays(given or []).get(HIDDEN)
        if not isinstance(hidden, np.ndarray):
            raise Refused(f"has no input {HIDDEN!r}, so nobody knows its patches; pack it for such a model")
        return Parted(super().shown(given), hidden)

    def batch(self, read: Sequence[Parted]) -> dict[str, torch.Tensor]:
        """What `look` needs of pictures and their patches: image [B, C, H, W] and hidden [B, P]."""
        images = super().batch([each.image for each in read])
        return {**images, HIDDEN: torch.from_numpy(np.stack([each.hidden for each in read]).astype(np.int64))}

    def collate(self, rows: pa.Table) -> dict[str, torch.Tensor]:
        images, hidden = (stacked(whole(rows, "inputs"), name) for name in (IMAGE, HIDDEN))
        if images is None or hidden is None:
            return self.batch([self.shown(given) for given in rows["inputs"].to_pylist()])
        return self.batch([Parted(*each) for each in zip(images, hidden, strict=True)])

    def given(self, net: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**super().given(net, inputs), "hidden": inputs[HIDDEN]}

    def look(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], taps: Sequence[str]) -> Seen:
        """`last` is what the head is given; a module's tap is its output at every patch."""
        return looked(model, self.given(model, inputs), inputs[HIDDEN] >= 0, taps)


def looked(
    model: torch.nn.Module, given: Mapping[str, torch.Tensor], there_BP: torch.Tensor, taps: Sequence[str], run: int = 1
) -> Seen:
    """What a model of one token and then places [B, P] shows of those that there are; what it computes of words is
    that of each of their `run` places."""
    net: Any = model
    states: list[torch.Tensor] = []

    def keep(_head: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        states.append(arguments[0])

    with Taps(model, [t for t in taps if t != "last"]) as seen, net.classifier.register_forward_pre_hook(keep):
        net(**given)
    seen["last"] = states[0]
    features = {}
    for name, value in seen.items():
        words = 1 if value.shape[1] > there_BP.shape[1] else run
        features[name] = value[:, 1:].repeat_interleave(words, 1)[:, : there_BP.shape[1]][there_BP]
    wanted = {name: features[name] for name in taps}
    return Seen(features["last"], {"main": net.classifier, **heads.of(model)}, wanted)
