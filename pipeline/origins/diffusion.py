"""Denoisers of pictures made here, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from pipeline.kinds.backend import LOCAL
from pipeline.kinds.origin import Card, Origin, origin
from pipeline.model.folder import NETWORK
from pipeline.origins.points import fresh

Size = tuple[PositiveInt, PositiveInt]
IMAGES = "images.denoiser"


@origin(gives=LOCAL, backend=NETWORK, network=IMAGES)
def pictures(
    *,
    size: Size,
    channels: PositiveInt = 1,
    width: PositiveInt = 128,
    layers: PositiveInt = 3,
    steps: PositiveInt = 40,
    seed: int,
) -> Origin:
    """An MLP over all pixels of a small picture, as `points.denoiser` is one over the numbers of a point.

    Paper: Ho et al. 2020 (DDPM, arXiv 2006.11239).
    Differs: it is an MLP.
    """

    def fill(out: Path) -> Card:
        from pipeline.nets.denoisers import Denoiser, DenoiserConfig

        shape = (channels, *size)
        config = DenoiserConfig(shape=shape, width=width, layers=layers, steps=steps)
        return fresh(out, _asked(shape), seed, Denoiser, config)

    return fill


@origin(gives=LOCAL, backend=NETWORK, network=IMAGES)
def unet(
    *,
    size: Size,
    channels: PositiveInt = 1,
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (32, 64),
    layers: PositiveInt = 1,
    groups: PositiveInt = 8,
    steps: PositiveInt = 40,
    seed: int,
) -> Origin:
    """diffusers' UNet (`pip install 'stillhouse[diffusion]'`), with a block of each width, the last with attention.

    Paper: Ronneberger et al. 2015 (U-Net, arXiv 1505.04597); Ho et al. 2020 (DDPM, arXiv 2006.11239).
    Differs: nothing.
    """

    def fill(out: Path) -> Card:
        from pipeline.nets.denoisers import Unet, UnetConfig

        plain = len(widths) - 1
        given = {
            "block_out_channels": list(widths),
            "down_block_types": [*["DownBlock2D"] * plain, "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", *["UpBlock2D"] * plain],
            "layers_per_block": layers,
            "norm_num_groups": groups,
        }
        shape = (channels, *size)
        return fresh(out, _asked(shape), seed, Unet, UnetConfig(shape=shape, unet=given, steps=steps))

    return fill


def _asked(shape: tuple[int, ...]) -> dict[str, Any]:
    """What one that makes pictures is asked with."""
    return {"network": IMAGES, "outcomes": [], "inputs": {"noise": list(shape)}}
