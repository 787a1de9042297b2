"""Networks that make pictures."""

from __future__ import annotations

from typing import Any

from pipeline.kinds.network import Network, network
from pipeline.networks.points import NOISE, Denoiser

IMAGE = "image"


@network(takes=(NOISE,), gives=("networks", "draws", "truth"), heads=("main",), backend="network.local")
def denoiser() -> Network:
    """A model that makes pictures of noise, as `points.denoiser` makes points: places are those of the input `noise`
    [N, channels, height, width], and an answer is the array `image`, of real numbers, a picture for each.

    Paper: Ho et al. 2020 (DDPM, arXiv 2006.11239).
    Differs: the words of a prompt are not read.
    """
    return Pictures()


class Pictures(Denoiser):
    """See `denoiser`."""

    made: Any = IMAGE
