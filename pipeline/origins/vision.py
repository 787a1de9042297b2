"""Classifiers of pictures: from a folder of transformers, or made here with random weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.backend import LOCAL
from pipeline.kinds.origin import Card, Dtype, Origin, origin
from pipeline.model.folder import NETWORK, PLACES, finish
from pipeline.tables.graphs import UNKNOWN

if TYPE_CHECKING:
    from transformers import PretrainedConfig

IMAGE = "classifier.image"
PATCHES = "masked.patches"
# What stands at a place of a model of patches.
PATCH = "patch"
# Numbers from 0 to 1 to numbers from -1 to 1.
HALF = 0.5
Size = tuple[PositiveInt, PositiveInt]
Outcomes = Annotated[tuple[str, ...], Field(min_length=2)]


@origin(
    gives=LOCAL,
    backend=NETWORK,
    network=IMAGE,
    files=lambda arguments: [arguments["path"]],
    mend="correct `path`",
)
def folder(*, path: str, dtype: Dtype = "float32") -> Origin:
    """A ViT, a DeiT or another classifier of pictures with a linear head, as transformers keeps it.

    `config.json` says by `id2label` what its outcomes are called, by `image_size` and `num_channels` what it looks at;
    `preprocessor_config.json`, if there is one, the mean and the deviation of the channels.

    Paper: none.
    Differs: nothing.
    """

    def fill(out: Path) -> Card:
        source = Path(path)
        for name in ("config.json", "model.safetensors"):
            if not (source / name).exists():
                raise Refused(f"{source} has no {name}. Save the model there with `save_pretrained(...)`")
        told = json.loads((source / "config.json").read_text("utf-8"))
        if "id2label" not in told:
            raise Refused(f"{source}/config.json has no id2label, so nobody knows what its outcomes are called; add it")
        size = told.get("image_size")
        if isinstance(size, int):
            size = [size, size]
        if size is None:
            raise Refused(f"{source}/config.json has no image_size, so nobody knows what it looks at; add it")
        shutil.copyfile(source / "model.safetensors", out / "model.safetensors")
        whole = json.dumps(_normalised(source, told), indent=1, sort_keys=True)
        (out / "config.json").write_text(whole + "\n", "utf-8")
        _places(out, list(told["id2label"].values()), (*size, told.get("num_channels", 3)))
        return finish(out, dtype)

    return fill


@origin(gives=LOCAL, backend=NETWORK, network=IMAGE)
def vit(
    *,
    outcomes: Outcomes,
    size: Size,
    channels: Literal[1, 3],
    patch: PositiveInt,
    width: PositiveInt,
    layers: PositiveInt,
    heads: PositiveInt,
    seed: int,
) -> Origin:
    """A ViT with random weights over square patches, of an outcome for each of the names.

    Paper: Dosovitskiy et al. 2021 (ViT, arXiv 2010.11929).
    Differs: no dropout.
    """

    def fill(out: Path) -> Card:
        import transformers

        if size[0] % patch or size[1] % patch:
            raise Refused(f"vision.vit: pictures of {size[0]} x {size[1]} are not whole patches of {patch}")
        config = transformers.ViTConfig(
            image_size=list(size),
            patch_size=patch,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=2 * width,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            **_told(outcomes, channels),
        )
        return _fresh(out, transformers.ViTForImageClassification, config, outcomes, (*size, channels), seed)

    return fill


@origin(gives=LOCAL, backend=NETWORK, network=IMAGE)
def conv(
    *,
    outcomes: Outcomes,
    size: Size,
    channels: Literal[1, 3],
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)],
    seed: int,
) -> Origin:
    """A small convolutional network with random weights: a block for each of the widths, halved in size between them.

    Paper: LeCun et al. 1998 (convolutional networks); Wu & He 2018 (group norm, arXiv 1803.08494).
    Differs: nothing to differ from.
    """

    def fill(out: Path) -> Card:
        from pipeline.nets.pictures import GROUPS, Conv, ConvConfig

        if odd := next((w for w in widths if w % GROUPS), None):
            raise Refused(f"vision.conv: a width of {odd} is not {GROUPS} equal groups; write a multiple of {GROUPS}")
        if min(size) < 2 ** (len(widths) - 1):
            raise Refused(f"vision.conv: pictures of {size[0]} x {size[1]} cannot be halved {len(widths) - 1} times")
        config = ConvConfig(widths=widths, **_told(outcomes, channels))
        return _fresh(out, Conv, config, outcomes, (*size, channels), seed)

    return fill


@origin(gives=LOCAL, backend=NETWORK, network=PATCHES)
def patches(
    *,
    size: Size,
    channels: Literal[1, 3],
    patch: PositiveInt,
    width: PositiveInt,
    layers: PositiveInt,
    heads: PositiveInt,
    seed: int,
) -> Origin:
    """The encoder of `vision.vit` with random weights, of whose patches some may be hidden: what is trained without
    classes, and then names them (`encoders.taken`).

    Paper: Xie et al. 2022 (SimMIM, arXiv 2111.09886).
    Differs: no dropout.
    """

    def fill(out: Path) -> Card:
        from pipeline.nets.pictures import Patches, PatchesConfig

        config = PatchesConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=2 * width,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            **parted(out, size, channels, patch),
        )
        return fresh(out, Patches, config, seed)

    return fill


def parted(out: Path, size: Size, channels: int, patch: int) -> dict[str, Any]:
    """Write the form of a model of patches, and return what its configuration says of them."""
    if size[0] % patch or size[1] % patch:
        raise Refused(f"pictures of {size[0]} x {size[1]} are not whole patches of {patch}")
    told = {"network": PATCHES, "outcomes": [PATCH], "inputs": {"image": [*size, channels]}, "patch": patch}
    (out / PLACES).write_text(json.dumps(told, sort_keys=True) + "\n", "utf-8")
    return {"image_size": list(size), "patch_size": patch, **_told([PATCH], channels)}


def fresh(out: Path, model: Any, config: PretrainedConfig, seed: int) -> Card:
    """A model of random weights, beside its form."""
    import torch

    torch.manual_seed(seed)
    model(config).save_pretrained(out)
    return finish(out, "float32")


def _told(outcomes: Sequence[str], channels: int) -> dict[str, Any]:
    """What all configurations say."""
    labels = dict(enumerate(sorted(outcomes)))
    ids = {name: i for i, name in labels.items()}
    normal = {"image_mean": [HALF] * channels, "image_std": [HALF] * channels}
    return {"num_channels": channels, "id2label": labels, "label2id": ids, **normal}


def _fresh(
    out: Path, model: Any, config: PretrainedConfig, outcomes: Sequence[str], shape: Sequence[int], seed: int
) -> Card:
    import torch

    _places(out, outcomes, shape)
    torch.manual_seed(seed)
    model(config).save_pretrained(out)
    return finish(out, "float32")


def _places(out: Path, outcomes: Sequence[str], shape: Sequence[int]) -> None:
    """The model's form: its outcomes in the order of their names, and what it looks at."""
    if twice := next((name for name in outcomes if list(outcomes).count(name) > 1), None):
        raise Refused(f"two outcomes are called {twice!r}; give each a name of its own")
    if UNKNOWN in outcomes:
        raise Refused(f"no outcome can be called {UNKNOWN!r}, which says that a class is unknown")
    told = {"network": IMAGE, "outcomes": sorted(outcomes), "inputs": {"image": list(shape)}}
    (out / PLACES).write_text(json.dumps(told, sort_keys=True) + "\n", "utf-8")


def _normalised(source: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the mean and the deviation of the channels that the folder says."""
    beside = source / "preprocessor_config.json"
    given = json.loads(beside.read_text("utf-8")) if beside.exists() else {}
    if not given.get("do_rescale", True):
        raise Refused(f"{beside} says `do_rescale: false`, and pictures are numbers from 0 to 1 here; take it out")
    channels = told.get("num_channels", 3)
    if not given.get("do_normalize", True):
        given = {"image_mean": [0.0] * channels, "image_std": [1.0] * channels}
    return {**{name: given.get(name, [HALF] * channels) for name in ("image_mean", "image_std")}, **told}
