"""Networks that say something of every pixel of a picture, or where each of several points lies in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.core.methods import lazy
from pipeline.errors import Refused
from pipeline.kinds.network import Network, Packed, Seen, network
from pipeline.model import heads
from pipeline.model.folder import PLACES
from pipeline.model.taps import Taps
from pipeline.networks.classifier import GIVES, IMAGE, Image
from pipeline.tables.graphs import UNKNOWN
from pipeline.tables.ids import Cell
from pipeline.tables.tensors import arrays, cell

if TYPE_CHECKING:
    import torch
    import transformers
else:
    torch = lazy("torch")
    transformers = lazy("transformers")

PARTS = "parts"


@network(takes=(IMAGE,), gives=GIVES, heads=("main",), backend="network.local")
def pixels() -> Network:
    """A classifier of pixels, such as SegFormer: places are the pixels of a picture, row after row.

    A map that is coarser than the picture is made as large by interpolation, before the head. An answer has a line for
    each pixel; `?` is an unknown one.

    Paper: Xie et al. 2021 (SegFormer, arXiv 2105.15203); Long et al. 2015 (fully convolutional networks).
    Differs: states are interpolated in place of logits, which is the same for a linear head.
    """
    return Pixels()


@network(takes=(IMAGE, PARTS), gives=GIVES, heads=("main",), backend="network.local")
def keypoints() -> Network:
    """A network of heat maps: places are the points of a figure that are asked about, outcomes the pixels of a picture.

    `parts` among the inputs are the numbers of those points, in ascending order; all are if there is none. An answer
    has a line of row and column for each.

    Paper: Xiao et al. 2018 (Simple baselines for human pose estimation, arXiv 1804.06208).
    Differs: a softmax over the pixels in place of a regression to a Gaussian, so that a map is a distribution.
    """
    return Keypoints()


class Pixels(Image):
    """See `pixels`."""

    apart = False

    def places(self, shown: np.ndarray) -> int:
        return shown.shape[0] * shown.shape[1]

    def pack(self, form: Path, messages: Sequence[dict[str, str]], answer: str, inputs: Cell | None = None) -> Packed:
        picture = self.asked(form, messages, inputs)
        return _packed(self, form, answer, self.places(picture), "pixels")

    def load(self, folder: Path, dtype: str) -> torch.nn.Module:
        from pipeline.nets.kept import opened

        net = opened(folder, transformers.AutoModelForSemanticSegmentation, dtype)
        heads.load(net, folder)
        return net

    def look(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], taps: Sequence[str]) -> Seen:
        """`last` is what the head is given; a module's tap is its map, made as large as the picture."""
        from pipeline.nets.pictures import Pointwise

        head = _head(model)
        maps = _maps(model, head, self.given(model, inputs), taps)
        size = inputs[IMAGE].shape[2:]
        at = {name: _at_pixels(name, value, size) for name, value in maps.items()}
        features = {name: at["last" if name == "last" else name] for name in taps}
        return Seen(at["last"], {"main": Pointwise(head), **heads.of(model)}, features)


@dataclass(frozen=True)
class Figure:
    """A picture, and the numbers of the points that are asked about."""

    picture: np.ndarray
    parts: np.ndarray


class Keypoints(Image):
    """See `keypoints`."""

    apart = False

    def asked(self, form: Path, messages: Sequence[dict[str, str]], inputs: Cell | None = None) -> Any:
        picture = Image().asked(form, messages, [a for a in inputs or () if a["name"] != PARTS])
        names = json.loads((form / PLACES).read_text("utf-8"))[PARTS]
        parts = _asked_parts(inputs, len(names))
        if len(parts) == 0 or (np.diff(parts) <= 0).any() or parts[0] < 0 or parts[-1] >= len(names):
            raise Refused(f"asks about points (`{PARTS}`) that are not ascending numbers from 0 to {len(names) - 1}")
        return Figure(picture, parts)

    def places(self, shown: Figure) -> int:
        return len(shown.parts)

    def pack(self, form: Path, messages: Sequence[dict[str, str]], answer: str, inputs: Cell | None = None) -> Packed:
        figure = self.asked(form, messages, inputs)
        packed = _packed(self, form, answer, self.places(figure), "points")
        if any(array["name"] == PARTS for array in inputs or ()):
            return packed
        asked = [*(inputs or ()), *cell({PARTS: figure.parts.astype(np.int32)})]
        return replace(packed, inputs=[dict(array) for array in asked])

    def target(self, form: Path, answer: str) -> int:
        return super().target(form, " ".join(f"{int(n):02d}" if n.isdigit() else n for n in answer.split()))

    def load(self, folder: Path, dtype: str) -> torch.nn.Module:
        from pipeline.nets.kept import opened
        from pipeline.nets.pictures import Map

        net = opened(folder, Map, dtype)
        heads.load(net, folder)
        return net

    def shown(self, given: Cell | None) -> Any:
        return Figure(super().shown(given), _asked_parts(given, None))

    def collate(self, rows: pa.Table) -> dict[str, torch.Tensor]:
        """picture [B, C, H, W], and of each place its row and its part."""
        return self.batch([self.shown(given) for given in rows["inputs"].to_pylist()])

    def batch(self, read: Sequence[Any]) -> dict[str, torch.Tensor]:
        sizes = [len(figure.parts) for figure in read]
        return {
            **super().batch([figure.picture for figure in read]),
            "row_N": torch.from_numpy(np.repeat(np.arange(len(read)), sizes)),
            "part_N": torch.from_numpy(np.concatenate([figure.parts for figure in read]).astype(np.int64)),
        }

    def look(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], taps: Sequence[str]) -> Seen:
        """`last` is a point's heat map; a module's tap is its mean over the picture."""
        net: Any = model
        with Taps(model, [t for t in taps if t != "last"]) as seen:
            heat_BPHW = net(**self.given(net, inputs)).logits
        row_N, part_N = inputs["row_N"], inputs["part_N"]
        maps_NV = heat_BPHW[row_N, part_N].flatten(1)
        features = {name: value.mean((2, 3))[row_N] for name, value in seen.items()}
        if "last" in taps:
            features["last"] = maps_NV
        return Seen(maps_NV, {"main": torch.nn.Identity(), **heads.of(model)}, features)

    def width(self, model: torch.nn.Module) -> int:
        net: Any = model
        return math.prod(net.config.image_size)


def _packed(network: Any, form: Path, answer: str, places: int, what: str) -> Packed:
    """An answer with a line for each place."""
    lines = answer.split("\n")
    if len(lines) != places:
        raise Refused(f"is about {places} {what}, and its answer has {len(lines)} lines; it needs one for each")
    known = {line: network.target(form, line) for line in set(lines)}
    strange = any(target < 0 and line.strip() != UNKNOWN for line, target in known.items())
    told = f"has {what} that are none of the student's outcomes, so their places are unknown" if strange else ""
    return Packed([known[line] for line in lines], [(0, places)], length=places, told=told)


def _asked_parts(given: Cell | None, of: int | None) -> np.ndarray:
    """The points that inputs ask about; without any all, of so many."""
    found: Any = arrays([a for a in given or () if a["name"] == PARTS]).get(PARTS)
    if found is None:
        if of is None:
            raise Refused(f"says not which points it asks about; give it an input called {PARTS!r}")
        return np.arange(of)
    if isinstance(found, bytes) or found.ndim != 1 or found.dtype.kind != "i":
        raise Refused(f"has an input {PARTS!r} that is no list of whole numbers")
    return found


def _head(model: torch.nn.Module) -> torch.nn.Conv2d:
    """The head that names pixels: a convolution of one pixel."""
    found: list[torch.nn.Conv2d] = [
        m for name, m in model.named_modules() if name.endswith("classifier") and isinstance(m, torch.nn.Conv2d)
    ]
    if len(found) != 1 or found[0].kernel_size != (1, 1):
        raise Refused(
            f"{type(model).__name__} has no head of one pixel called classifier; use SegFormer's kind of model"
        )
    return found[0]


def _maps(
    model: torch.nn.Module, head: torch.nn.Module, given: Mapping[str, torch.Tensor], taps: Sequence[str]
) -> dict[str, torch.Tensor]:
    """What the head is given, as `last`, and the taps."""
    kept: list[torch.Tensor] = []

    def keep(_head: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        kept.append(arguments[0])

    with Taps(model, [t for t in taps if t != "last"]) as seen, head.register_forward_pre_hook(keep):
        model(**given)
    return {**seen, "last": kept[0]}


def _at_pixels(name: str, value: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """A map [B, D, h, w] at every pixel, [B H W, D]."""
    if value.dim() != 4:
        raise Refused(f"the tap {name!r} is {list(value.shape)} and no map of a picture; name a module that gives one")
    if tuple(value.shape[2:]) != tuple(size):
        value = torch.nn.functional.interpolate(value, size=tuple(size), mode="bilinear", align_corners=False)
    return value.permute(0, 2, 3, 1).flatten(0, 2)
