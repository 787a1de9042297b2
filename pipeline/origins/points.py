"""Networks of points made here, with random weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.backend import LOCAL
from pipeline.kinds.origin import Card, Origin, origin
from pipeline.model.folder import NETWORK, PLACES, finish
from pipeline.tables.graphs import UNKNOWN

Outcomes = Annotated[tuple[str, ...], Field(min_length=2)]
Size = tuple[PositiveInt, PositiveInt]
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]

# Numbers from 0 to 1 to numbers from -1 to 1.
HALF = 0.5


@origin(gives=LOCAL, backend=NETWORK, network="points.denoiser")
def denoiser(
    *, numbers: PositiveInt = 2, width: PositiveInt = 64, layers: PositiveInt = 3, steps: PositiveInt = 40, seed: int
) -> Origin:
    """An MLP that tells of a noised point, and of how much noise that is, what it was; it makes points of noise in so
    many `steps`.

    Paper: Ho et al. 2020 (DDPM, arXiv 2006.11239), the model; Salimans & Ho 2022 (arXiv 2202.00512), what it tells.
    Differs: it is an MLP.
    """

    def fill(out: Path) -> Card:
        from pipeline.nets.denoisers import Denoiser, DenoiserConfig

        config = DenoiserConfig(shape=(numbers,), width=width, layers=layers, steps=steps)
        return fresh(out, _asked(numbers), seed, Denoiser, config)

    return fill


@origin(gives=LOCAL, backend=NETWORK, network="points.denoiser")
def canvas(*, samples: PositiveInt = 256, numbers: PositiveInt = 2, seed: int) -> Origin:
    """A cloud whose points are the weights, beginning as noise: what it makes is itself, of whatever noise it is asked.

    Paper: Poole et al. 2023 (DreamFusion, arXiv 2209.14988): the parameters of one sample in place of a generator.
    Differs: there is no renderer.
    """

    def fill(out: Path) -> Card:
        from pipeline.nets.denoisers import Canvas, CanvasConfig

        return fresh(out, _asked(numbers), seed, Canvas, CanvasConfig(samples=samples, shape=(numbers,)))

    return fill


@origin(gives=LOCAL, backend=NETWORK, network="points.cloud")
def pointnet(*, outcomes: Outcomes, numbers: PositiveInt = 3, widths: Widths = (32, 64), seed: int) -> Origin:
    """A small PointNet: layers over every point by itself, and the largest of what they say over the cloud.

    Paper: Qi et al. 2017 (PointNet, arXiv 1612.00593).
    Differs: no transforms are learnt of the points or of their states, and one linear head names the cloud.
    """

    def fill(out: Path) -> Card:
        from pipeline.nets.points import Cloud, CloudConfig

        names = sorted(outcomes)
        if len(set(names)) < len(names) or UNKNOWN in names:
            raise Refused(
                f"outcomes: each needs a name of its own, and none is {UNKNOWN!r}, which says that it is unknown"
            )
        told = {"network": "points.cloud", "outcomes": names, "inputs": {"points": [numbers]}}
        return fresh(out, told, seed, Cloud, CloudConfig(numbers=numbers, widths=widths, num_labels=len(names)))

    return fill


@origin(gives=LOCAL, backend=NETWORK, network="points.scene")
def surroundings(
    *,
    outcomes: Outcomes,
    size: Size,
    channels: Literal[1, 3] = 3,
    numbers: PositiveInt = 3,
    widths: Widths = (32, 32),
    neighbours: PositiveInt = 8,
    seed: int,
) -> Origin:
    """A small network of scenes that looks at the points, each with so many `neighbours`, itself among them; pictures
    beside them are of this size.

    Paper: Wang et al. 2019 (DGCNN, arXiv 1801.07829).
    Differs: neighbours are the nearest in space in all layers, and one linear head names a point.
    """

    def fill(out: Path) -> Card:
        from pipeline.nets.points import Surroundings, SurroundingsConfig

        told = _scene(outcomes, (*size, channels), numbers)
        config = SurroundingsConfig(numbers, widths, neighbours, num_labels=len(outcomes))
        return fresh(out, told, seed, Surroundings, config)

    return fill


@origin(gives=LOCAL, backend=NETWORK, network="points.scene")
def camera(
    *,
    outcomes: Outcomes,
    size: Size,
    channels: Literal[1, 3] = 3,
    numbers: PositiveInt = 3,
    widths: Widths,
    seed: int,
) -> Origin:
    """A network of scenes that looks at the picture, by the convolutions of `dense.conv`; its form is that of the
    `points.surroundings` that it may teach.

    Paper: Sautier et al. 2022 (SLidR, arXiv 2203.16258), the image encoder.
    Differs: theirs is a ResNet-50 that was trained on other pictures without classes.
    """

    def fill(out: Path) -> Card:
        from pipeline.nets.pictures import Map, MapConfig

        told, half = _scene(outcomes, (*size, channels), numbers), [HALF] * channels
        labels = {"num_labels": len(outcomes), "image_mean": half, "image_std": half}
        return fresh(out, told, seed, Map, MapConfig(widths, channels, **labels))

    return fill


def _scene(outcomes: Sequence[str], picture: Sequence[int], numbers: int) -> dict[str, Any]:
    """The form of a network of scenes."""
    if len(set(outcomes)) < len(outcomes) or UNKNOWN in outcomes:
        raise Refused(f"outcomes: each needs a name of its own, and none is {UNKNOWN!r}, which says that it is unknown")
    inputs = {"image": list(picture), "points": [numbers]}
    return {"network": "points.scene", "outcomes": sorted(outcomes), "inputs": inputs}


def _asked(numbers: int) -> dict[str, Any]:
    """What one that makes points is asked with."""
    return {"network": "points.denoiser", "outcomes": [], "inputs": {"noise": [numbers]}}


def fresh(out: Path, told: Mapping[str, Any], seed: int, net: Any, config: Any) -> Card:
    """A folder of a model with the weights that torch begins with."""
    import torch

    (out / PLACES).write_text(json.dumps(told, sort_keys=True) + "\n", "utf-8")
    torch.manual_seed(seed)
    net(config).save_pretrained(out)
    return finish(out, "float32")
