"""Networks of points: clouds that are named, and noise of which samples are made."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.core.methods import lazy
from pipeline.errors import Refused
from pipeline.kinds.network import Network, Packed, Seen, network
from pipeline.model import heads, noising
from pipeline.model.folder import PLACES
from pipeline.model.taps import Taps
from pipeline.networks.classifier import GIVES, IMAGE, Image, Named
from pipeline.networks.dense import Pixels
from pipeline.tables.graphs import UNKNOWN
from pipeline.tables.ids import Cell
from pipeline.tables.tensors import arrays

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

POINTS, NOISE, THERE = "points", "noise", "there"
AREAS, PIXEL = "areas", "pixel"


@network(takes=(POINTS,), gives=GIVES, heads=("main",), backend="network.local")
def cloud() -> Network:
    """A classifier of clouds of points: the place is the whole cloud, the outcomes are class names.

    Paper: Qi et al. 2017 (PointNet, arXiv 1612.00593).
    Differs: the words of a prompt are not read.
    """
    return Cloud()


@network(takes=(NOISE,), gives=("networks", "draws", "truth"), heads=("main",), backend="network.local")
def denoiser() -> Network:
    """A model that makes samples of noise, in one step or in several: places are the rows of the input `noise`
    [N, numbers], and an answer is the array `points`, a sample for each.

    Paper: Ho et al. 2020 (DDPM, arXiv 2006.11239); Song et al. 2021 (DDIM, arXiv 2010.02502), how it samples.
    Differs: the words of a prompt are not read.
    """
    return Denoiser()


@network(takes=(POINTS, IMAGE, AREAS, PIXEL), gives=GIVES, heads=("main",), backend="network.local")
def scene() -> Network:
    """A classifier of the areas of a scene, which one model sees as points and another as a picture: places are the
    areas that have points, in the order of their numbers, and what is said of one is the mean over what lies in it.

    Inputs are `points` [P, numbers] and, for a model that looks at the picture, `image`, `pixel` [P], in which of its
    pixels, row after row, each point is seen, and `areas` [height, width], the area of each pixel. Without `areas`
    every point is a place of its own. An answer has a line for each place.

    Paper: Sautier et al. 2022 (SLidR, arXiv 2203.16258), features of points and of pixels pooled by superpixel.
    Differs: the words of a prompt are not read.
    """
    return Scene()


class Cloud(Named):
    """See `cloud`."""

    def asked(self, form: Path, messages: Sequence[dict[str, str]], inputs: Cell | None = None) -> np.ndarray:
        """The cloud that is asked about, [P, F]."""
        points = self.shown(inputs)
        [numbers] = json.loads((form / PLACES).read_text("utf-8"))["inputs"][POINTS]
        if points.shape[1] != numbers:
            raise Refused(f"is a cloud whose points have {points.shape[1]} numbers, and the model reads {numbers}")
        return points

    def load(self, folder: Path, dtype: str) -> torch.nn.Module:
        from pipeline.nets.kept import opened
        from pipeline.nets.points import Cloud

        net = opened(folder, Cloud, dtype)
        heads.load(net, folder)
        return net

    def collate(self, rows: pa.Table) -> dict[str, torch.Tensor]:
        """points [B, P, F], padded, and there [B, P], which of them are points."""
        return self.batch([self.shown(given) for given in rows["inputs"].to_pylist()])

    def shown(self, given: Cell | None) -> np.ndarray:
        """The points that `inputs` hold."""
        return rows_of_numbers(given, POINTS, "a network of clouds")

    def batch(self, read: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """What `look` needs of clouds."""
        sizes = np.array([len(points) for points in read])
        there_BP = np.arange(sizes.max()) < sizes[:, None]
        points_BPF = np.zeros((*there_BP.shape, read[0].shape[1]), np.float32)
        points_BPF[there_BP] = np.concatenate(read)
        return {POINTS: torch.from_numpy(points_BPF), THERE: torch.from_numpy(there_BP)}

    def given(self, net: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"x": inputs[POINTS].to(net.dtype), "there": inputs[THERE]}

    def look(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], taps: Sequence[str]) -> Seen:
        """`last` is what the head is given; a module's tap, which is of points, is the largest over a cloud."""
        net: Any = model
        given: list[torch.Tensor] = []

        def keep(_head: Any, arguments: tuple[torch.Tensor, ...]) -> None:
            given.append(arguments[0])

        with Taps(model, [t for t in taps if t != "last"]) as seen, net.classifier.register_forward_pre_hook(keep):
            net(**self.given(net, inputs))
        [states_ND] = given
        features = {name: _largest(value, inputs[THERE]) for name, value in seen.items()}
        if "last" in taps:
            features["last"] = states_ND
        return Seen(states_ND, {"main": net.classifier, **heads.of(model)}, features)

    def put(
        self, output: torch.Tensor, inputs: Mapping[str, torch.Tensor], make: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """All points of a cloud are moved alike, so that the largest of them are what is made of them."""
        largest_BD = _largest(output, inputs[THERE])
        moved_BD = make(largest_BD) - largest_BD
        return output + (moved_BD[:, None] if output.dim() == 3 else moved_BD)


def _largest(output: torch.Tensor, there_BP: torch.Tensor) -> torch.Tensor:
    """Of a module's output for points [B, P, D] the largest over the points of a cloud; of one for clouds itself."""
    return output.masked_fill(~there_BP[:, :, None], -torch.inf).amax(1) if output.dim() == 3 else output


@dataclass(frozen=True)
class Scanned:
    """Points [P, F] and the place of each; the picture beside them, and of which of its pixels the places are made."""

    points: np.ndarray
    place_P: np.ndarray
    picture: np.ndarray | None
    place_M: np.ndarray
    pixel_M: np.ndarray

    @property
    def places(self) -> int:
        return int(self.place_P.max()) + 1


class Scene(Pixels):
    """See `scene`. A model that looks at pictures is one of `dense.pixels`, with another form."""

    apart = False

    def asked(self, form: Path, messages: Sequence[dict[str, str]], inputs: Cell | None = None) -> Any:
        """The scene that is asked about."""
        scanned, told = self.shown(inputs), json.loads((form / PLACES).read_text("utf-8"))["inputs"]
        [numbers] = told[POINTS]
        if scanned.points.shape[1] != numbers:
            raise Refused(f"has points of {scanned.points.shape[1]} numbers, and the model reads {numbers}")
        if scanned.picture is not None and list(scanned.picture.shape) != told[IMAGE]:
            raise Refused(f"has a picture of {list(scanned.picture.shape)}, and the model looks at {told[IMAGE]}")
        return scanned

    def pack(self, form: Path, messages: Sequence[dict[str, str]], answer: str, inputs: Cell | None = None) -> Packed:
        count, lines = self.asked(form, messages, inputs).places, answer.split("\n")
        if len(lines) != count:
            raise Refused(f"is about {count} areas, and its answer has {len(lines)} lines; it needs one for each")
        targets = [self.target(form, line) for line in lines]
        strange = any(target < 0 and line.strip() != UNKNOWN for target, line in zip(targets, lines, strict=True))
        told = "has areas that are none of the student's outcomes, so their places are unknown" if strange else ""
        return Packed(targets, [(0, count)], length=count, told=told)

    def places(self, shown: Any) -> int:
        return int(shown.places)

    def load(self, folder: Path, dtype: str) -> torch.nn.Module:
        from pipeline.nets.kept import opened
        from pipeline.nets.pictures import Map

        net = opened(folder, Map, dtype)
        heads.load(net, folder)
        return net

    def shown(self, given: Cell | None) -> Any:
        """The scene that `inputs` hold."""
        points, found = rows_of_numbers(given, POINTS, "a network of scenes"), arrays(given or [])
        own = np.arange(len(points))
        if PIXEL not in found:
            if AREAS in found:
                raise Refused(f"has {AREAS!r}, and no input {PIXEL!r} that says where its points are seen")
            return Scanned(points, own, None, own[:0], own[:0])
        picture = Image.shown(self, given)
        pixel_P = _whole(found[PIXEL], (len(points),), PIXEL)
        size = picture.shape[:2]
        if pixel_P.min() < 0 or pixel_P.max() >= size[0] * size[1]:
            raise Refused(
                f"has a point that is seen in no pixel of a picture of {size[0]} x {size[1]}; correct {PIXEL!r}"
            )
        if AREAS not in found:
            return Scanned(points, own, picture, own, pixel_P)
        area = _whole(found[AREAS], size, AREAS).flatten()
        names, place_P = np.unique(area[pixel_P], return_inverse=True)
        pixel_M = np.flatnonzero(np.isin(area, names))
        return Scanned(points, place_P, picture, np.searchsorted(names, area[pixel_M]), pixel_M)

    def collate(self, rows: pa.Table) -> dict[str, torch.Tensor]:
        """What `batch` says of all rows."""
        return self.batch([self.shown(given) for given in rows["inputs"].to_pylist()])

    def batch(self, read: Sequence[Any]) -> dict[str, torch.Tensor]:
        """points [B, P, F] and which of them are there, the place of each of these, and of how many points it is made;
        if all have a picture, the pictures, and which of their pixels are of which place."""
        starts = np.cumsum([0, *(one.places for one in read)])
        of_point = [one.place_P + start for one, start in zip(read, starts, strict=False)]
        place_P = torch.from_numpy(np.concatenate(of_point))
        made = {**Cloud().batch([one.points for one in read]), "place_P": place_P, "size_N": place_P.bincount()}
        if any(one.picture is None for one in read):
            return made
        pixels = math.prod(read[0].picture.shape[:2])
        of_pixel = [one.place_M + start for one, start in zip(read, starts, strict=False)]
        pixel_M = np.concatenate([one.pixel_M + row * pixels for row, one in enumerate(read)])
        pictures = super().batch([one.picture for one in read])
        return {
            **made,
            **pictures,
            "place_M": torch.from_numpy(np.concatenate(of_pixel)),
            "pixel_M": torch.from_numpy(pixel_M),
        }

    def look(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], taps: Sequence[str]) -> Seen:
        """`last` is the mean of what the head is given over a place; a module's tap is the mean of its output."""
        net: Any = model
        if isinstance(net.classifier, torch.nn.Conv2d):
            if IMAGE not in inputs:
                raise Refused("a model of pictures is asked about scenes without one; give them `image` and `pixel`")
            seen, place_M = super().look(model, inputs, taps), inputs["place_M"]
            values = {"": seen.states_ND, **seen.features}
            values = {name: value[inputs["pixel_M"]] for name, value in values.items()}
            head = seen.heads["main"]
        else:
            kept: list[torch.Tensor] = []
            hook = net.classifier.register_forward_pre_hook(lambda _head, given: kept.append(given[0]))
            with Taps(model, [t for t in taps if t != "last"]) as found:
                net(inputs[POINTS].to(net.dtype), inputs[THERE])
            hook.remove()
            there, place_M, head = inputs[THERE], inputs["place_P"], net.classifier
            values = {name: value[there] for name, value in {"": kept[0], "last": kept[0], **found}.items()}
        means = {name: _means(value, place_M, len(inputs["size_N"])) for name, value in values.items()}
        return Seen(means[""], {"main": head, **heads.of(model)}, {name: means[name] for name in taps})


def _whole(found: Any, shape: Sequence[int], name: str) -> np.ndarray:
    """An input of whole numbers, of this shape."""
    if isinstance(found, bytes) or found.dtype.kind not in "iu" or found.shape != tuple(shape):
        raise Refused(f"has an input {name!r} that is not {list(shape)} whole numbers")
    return np.asarray(found, np.int64)


def _means(value_MD: torch.Tensor, place_M: torch.Tensor, places: int) -> torch.Tensor:
    """Of rows the mean by place, [N, D]."""
    total = value_MD.new_zeros(places, value_MD.shape[1]).index_add(0, place_M, value_MD)
    return total / place_M.bincount(minlength=places)[:, None].to(value_MD.dtype)


class Denoiser:
    """See `denoiser`; what makes of noise arrays of any shape, of which a picture is one."""

    made, noise = POINTS, NOISE

    def asked(self, form: Path, messages: Sequence[dict[str, str]], inputs: Cell | None = None) -> np.ndarray:
        """The noise that is asked about, [N, ...]."""
        noise = self.shown(inputs)
        told = json.loads((form / PLACES).read_text("utf-8"))["inputs"][self.noise]
        if list(noise.shape[1:]) != told:
            raise Refused(f"is about noise of the shape {list(noise.shape)}, and the model makes a sample of {told}")
        return noise

    def pack(self, form: Path, messages: Sequence[dict[str, str]], answer: str, inputs: Cell | None = None) -> Packed:
        count = len(self.asked(form, messages, inputs))
        return Packed([-1] * count, [(0, count)])

    def outcomes(self, form: Path) -> list[str]:
        """None of its places has a name."""
        return []

    def places(self, shown: np.ndarray) -> int:
        """How many samples are to be made."""
        return len(shown)

    def length(self, shown: np.ndarray) -> int | None:
        """No token is read."""
        return None

    def load(self, folder: Path, dtype: str) -> torch.nn.Module:
        from pipeline.nets.denoisers import Denoiser
        from pipeline.nets.kept import opened

        return opened(folder, Denoiser, dtype)

    def collate(self, rows: pa.Table) -> dict[str, torch.Tensor]:
        """The noise of all rows, [N, ...]."""
        return self.batch([self.shown(given) for given in rows["inputs"].to_pylist()])

    def shown(self, given: Cell | None) -> np.ndarray:
        """The noise that `inputs` hold."""
        return rows_of_numbers(given, self.noise, "a denoiser")

    def batch(self, read: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """What `look` needs of noise."""
        return {self.noise: torch.from_numpy(np.concatenate(read).astype(np.float32))}

    def look(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], taps: Sequence[str]) -> Seen:
        """As it makes samples in one step: `last` is what the last layer is given, whose head tells their numbers."""
        net: Any = model
        noise = inputs[self.noise].to(net.dtype)
        with Taps(model, [t for t in taps if t != "last"]) as seen:
            states_ND = net.states(noise, noise.new_ones(len(noise)))
        features = dict(seen) | ({"last": states_ND} if "last" in taps else {})
        return Seen(states_ND, {"main": net.classifier}, features)

    def calls(self, model: torch.nn.Module) -> Callable[..., torch.Tensor]:
        """From noised samples [N, ...] and their times [N] to the samples."""
        return model

    def draws(self, inputs: Mapping[str, torch.Tensor], draw: torch.Generator) -> dict[str, torch.Tensor]:
        """`start`, the noise of the rows; `noise`, as much of it anew; `time` [N], between the first and 1."""
        start = inputs[self.noise]
        time_N = noising.FIRST + (1 - noising.FIRST) * torch.rand(len(start), generator=draw)
        return {"start": start, "noise": torch.randn(start.shape, generator=draw), "time": time_N}

    def makes(self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """A sample of each noise, in as many steps as the model's configuration says."""
        net: Any = model
        return noising.sampled(net, inputs[self.noise].to(net.dtype), net.config.steps)

    def width(self, model: torch.nn.Module) -> int:
        net: Any = model
        return math.prod(net.config.shape)

    def save(self, model: torch.nn.Module, out: Path) -> None:
        net: Any = model
        net.save_pretrained(out)


def rows_of_numbers(given: Cell | None, name: str, who: str) -> np.ndarray:
    """An input of this name, that has a row of real numbers for each of something."""
    found: dict[str, Any] = dict(arrays(given or []))
    if name not in found:
        raise Refused(f"is about {', '.join(found) or 'nothing but words'}, and {who} needs an input called {name!r}")
    value = found[name]
    if isinstance(value, bytes) or value.ndim < 2 or value.dtype.kind != "f" or not len(value):
        raise Refused(f"has an input {name!r} that is no table of real numbers")
    return value
