"""Models without weights: what a formula says of a picture, as a teacher that was never trained."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from pipeline.kinds.backend import LOCAL
from pipeline.kinds.origin import Card, Origin, origin
from pipeline.model.folder import NETWORK
from pipeline.origins.vision import PATCHES, Size, fresh, parted


@origin(gives=LOCAL, backend=NETWORK, network=PATCHES)
def hog(*, size: Size, channels: Literal[1, 3], patch: PositiveInt, bins: PositiveInt = 9) -> Origin:
    """The tap `last` says of each patch how steep it is in each of so many directions, brought to mean 0 and
    variance 1.

    Paper: Dalal & Triggs 2005 (histograms of oriented gradients); Wei et al. 2022 (MaskFeat, arXiv 2112.09133), as what
    stands at a hidden patch.
    Differs: a patch is a cell, without blocks of cells and without shares of neighbouring bins.
    """
    return lambda out: _described(out, "hog", size, channels, patch, bins)


@origin(gives=LOCAL, backend=NETWORK, network=PATCHES)
def pixels(*, size: Size, channels: Literal[1, 3], patch: PositiveInt) -> Origin:
    """The tap `last` is each patch itself, brought to mean 0 and variance 1.

    Paper: He et al. 2022 (MAE, arXiv 2111.06377), what stands at a hidden patch.
    Differs: nothing.
    """
    return lambda out: _described(out, "pixels", size, channels, patch, 1)


def _described(out: Path, kind: str, size: Size, channels: int, patch: int, bins: int) -> Card:
    from pipeline.nets.pictures import Described, DescribedConfig

    config = DescribedConfig(kind=kind, bins=bins, **parted(out, size, channels, patch))
    return fresh(out, Described, config, 0)
