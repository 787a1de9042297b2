"""Networks of points: clouds that are named, and noise of which samples are made."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
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
from pipeline.networks.classifier import GIVES, Named
from pipeline.tables.graphs import UNKNOWN
from pipeline.tables.ids import Cell
from pipeline.tables.tensors import arrays

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

POINTS, NOISE, THERE = "points", "noise", "there"


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


class Cloud(Named):
    """See `cloud`."""

    def asked(self, form: Path, messages: Sequence[dict[str, str]], inputs: Cell | None = None) -> np.ndarray:
        """The cloud that is asked about, [P, F]."""
        points = self.shown(inputs)
        [numbers] = json.loads((form / PLACES).read_text("utf-8"))["inputs"][POINTS]
        if points.shape[1] != numbers:
            raise Refused(f"is a cloud whose points have {points.shape[1]} numbers, and the model reads {numbers}")
        return points

    def pack(self, form: Path, messages: Sequence[dict[str, str]], answer: str, inputs: Cell | None = None) -> Packed:
        self.asked(form, messages, inputs)
        target = self.target(form, answer)
        strange = target < 0 and answer.strip() != UNKNOWN
        told = "is none of the student's outcomes, so its place is unknown" if strange else ""
        return Packed([target], [(0, 1)], length=1, told=told)

    def length(self, shown: np.ndarray) -> int | None:
        """No token is read."""
        return None

    def load(self, folder: Path, dtype: str) -> torch.nn.Module:
        from pipeline.model import nets

        net = nets.opened(folder, nets.Cloud, dtype)
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
        from pipeline.model import nets

        return nets.opened(folder, nets.Denoiser, dtype)

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
