"""Networks of pixels and of key points, made here with random weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.backend import LOCAL
from pipeline.kinds.origin import Card, Origin, origin
from pipeline.model.folder import NETWORK, PLACES, finish
from pipeline.tables.graphs import UNKNOWN

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Names = Annotated[tuple[str, ...], Field(min_length=2)]
Size = tuple[PositiveInt, PositiveInt]
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
HALF = 0.5


@origin(gives=LOCAL, backend=NETWORK, network="dense.pixels")
def conv(*, outcomes: Names, size: Size, channels: Literal[1, 3], widths: Widths, seed: int) -> Origin:
    """Convolutions as large as the picture, of which every one sees twice as far as that before; they name each pixel.

    Paper: Yu & Koltun 2016 (dilated convolutions, arXiv 1511.07122).
    Differs: group norm; what is seen grows to 8 pixels and begins anew.
    """

    def fill(out: Path) -> Card:
        from pipeline.nets.pictures import Map, MapConfig

        names = _named(outcomes, "outcomes")
        return _fresh(out, Map, MapConfig(widths=widths, **_told(names, channels)), "dense.pixels", names, size, seed)

    return fill


@origin(gives=LOCAL, backend=NETWORK, network="dense.pixels")
def segformer(
    *,
    outcomes: Names,
    size: Size,
    channels: Literal[1, 3],
    widths: tuple[PositiveInt, PositiveInt],
    heads: PositiveInt,
    seed: int,
) -> Origin:
    """A SegFormer of two stages with random weights, of which the first halves the picture's size and the second that.

    Paper: Xie et al. 2021 (SegFormer, arXiv 2105.15203).
    Differs: two stages of a layer each, for small pictures; no dropout.
    """

    def fill(out: Path) -> Card:
        import transformers

        names = _named(outcomes, "outcomes")
        config = transformers.SegformerConfig(
            num_encoder_blocks=2, depths=[1, 1], sr_ratios=[1, 1], hidden_sizes=list(widths), patch_sizes=[3, 3],
            strides=[2, 2], num_attention_heads=[heads, heads], mlp_ratios=[2, 2], decoder_hidden_size=widths[-1],
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout_prob=0.0, drop_path_rate=0.0,
            **_told(names, channels),
        )  # fmt: skip
        return _fresh(out, transformers.SegformerForSemanticSegmentation, config, "dense.pixels", names, size, seed)

    return fill


@origin(gives=LOCAL, backend=NETWORK, network="dense.keypoints")
def points(*, parts: Names, size: Size, channels: Literal[1, 3], widths: Widths, seed: int) -> Origin:
    """The convolutions of `dense.conv` with a heat map for each of the named points of a figure.

    Paper: Xiao et al. 2018 (Simple baselines for human pose estimation, arXiv 1804.06208).
    Differs: no pooling, and no pretrained body.
    """

    def fill(out: Path) -> Card:
        from pipeline.nets.pictures import Map, MapConfig

        _named(parts, "parts")
        cells = [f"{row:02d} {column:02d}" for row in range(size[0]) for column in range(size[1])]
        config = MapConfig(widths=widths, image_size=list(size), **_told(parts, channels))
        return _fresh(out, Map, config, "dense.keypoints", cells, size, seed, parts=list(parts))

    return fill


def _named(names: Sequence[str], what: str) -> list[str]:
    if len(set(names)) < len(names) or UNKNOWN in names:
        raise Refused(f"{what}: each needs a name of its own, and none is {UNKNOWN!r}, which says that it is unknown")
    return sorted(names)


def _told(names: Sequence[str], channels: int) -> Mapping[str, Any]:
    """What all configurations say."""
    labels = dict(enumerate(names))
    return {
        "num_channels": channels, "id2label": labels, "label2id": {name: i for i, name in labels.items()},
        "image_mean": [HALF] * channels, "image_std": [HALF] * channels,
    }  # fmt: skip


def _fresh(
    out: Path, model: Any, config: PretrainedConfig, network: str, outcomes: Sequence[str], size: Size, seed: int,
    **more: Any,
) -> Card:  # fmt: skip
    import torch

    inputs = {"image": [*size, config.num_channels]}
    told = {"network": network, "outcomes": outcomes, "inputs": inputs, **more}
    (out / PLACES).write_text(json.dumps(told, sort_keys=True) + "\n", "utf-8")
    torch.manual_seed(seed)
    model(config).save_pretrained(out)
    return finish(out, "float32")
