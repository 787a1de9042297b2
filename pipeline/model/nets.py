"""Small models of this project's own, kept as transformers keeps its: `config.json` and `model.safetensors`.

Imports torch: whoever only names a method must not import it.
"""

from __future__ import annotations

import importlib
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from pipeline.model.load import positions
from pipeline.model.noising import along, signal, spread
from pipeline.model.pairs import Pair
from pipeline.model.scenes import Surroundings

GROUPS = 4
# Of a time, sines and cosines.
WAVES = 4


class ConvConfig(PretrainedConfig):
    """What a `Conv` is made of."""

    model_type = "stillhouse-conv"

    def __init__(self, widths: tuple[int, ...] = (8, 16), num_channels: int = 1, **others: Any) -> None:
        self.widths, self.num_channels = list(widths), num_channels
        super().__init__(**others)


class Conv(PreTrainedModel):
    """Blocks of a 3 x 3 convolution, group norm, ReLU and pooling by 2; the head is given the mean over the picture.

    Group norm, because a batch norm would move when a frozen model is called.
    """

    config_class = ConvConfig
    main_input_name = "pixel_values"

    def __init__(self, config: ConvConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(GROUPS, o), nn.ReLU())
            for i, o in pairwise([config.num_channels, *config.widths])
        )
        self.classifier = nn.Linear(config.widths[-1], config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as torch makes them."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] of pictures [B, C, H, W]."""
        seen = pixel_values
        for i, block in enumerate(self.blocks):
            seen = block(seen if i == 0 else nn.functional.max_pool2d(seen, 2))
        return self.classifier(seen.mean((2, 3)))


class NodesConfig(PretrainedConfig):
    """What a `Nodes` is made of; one that is `linked` is a graph convolutional network, another is an MLP."""

    model_type = "stillhouse-nodes"

    def __init__(
        self,
        numbers: int = 1,
        widths: tuple[int, ...] = (16,),
        linked: bool = True,
        dropout: float = 0.0,
        **others: Any,
    ) -> None:
        self.numbers, self.widths, self.linked, self.dropout = numbers, list(widths), linked, dropout
        super().__init__(**others)


class Nodes(PreTrainedModel):
    """Linear layers over the numbers of every node, with the mean over its neighbours and itself before each if it is
    linked: the sum of theirs over the root of both their numbers of neighbours (Kipf & Welling 2017)."""

    config_class = NodesConfig
    main_input_name = "x"

    def __init__(self, config: NodesConfig) -> None:
        super().__init__(config)
        widths = [config.numbers, *config.widths]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.classifier = nn.Linear(widths[-1], config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as torch makes them."""

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Logits [M, V] of nodes x [M, F], of which edges [2, E] say who has which neighbour."""
        seen, near = x, self._near(len(x), edges)
        for layer in self.layers:
            seen = nn.functional.relu(layer(_around(seen, near)))
            seen = nn.functional.dropout(seen, self.config.dropout, self.training)
        return self.classifier(_around(seen, near))

    def _near(self, nodes: int, edges: torch.Tensor) -> torch.Tensor | None:
        """What share of each node every node has, as a sparse matrix [M, M]; none if edges mean nothing."""
        if not self.config.linked:
            return None
        own = torch.arange(nodes, device=edges.device)
        both = torch.cat([edges, own.expand(2, -1)], 1)
        root = torch.bincount(both[0], minlength=nodes).float().rsqrt()
        # Not checked: `networks/graph.py` refuses an edge to nowhere.
        return torch.sparse_coo_tensor(both, root[both].prod(0), (nodes, nodes), check_invariants=False)


def _around(seen: torch.Tensor, near: torch.Tensor | None) -> torch.Tensor:
    """What every node has of those around it, [M, D]."""
    # There is no such product in half precision.
    return seen if near is None else torch.sparse.mm(near, seen.float()).to(seen.dtype)


class DenoiserConfig(PretrainedConfig):
    """What a `Denoiser` is made of: `shape` is that of a sample; it makes one of noise in so many `steps`."""

    model_type = "stillhouse-denoiser"

    def __init__(
        self, shape: tuple[int, ...] = (2,), width: int = 64, layers: int = 3, steps: int = 1, **others: Any
    ) -> None:
        self.shape, self.width, self.layers, self.steps = list(shape), width, layers, steps
        super().__init__(**others)


class Denoiser(PreTrainedModel):
    """An MLP over the numbers of a noised sample and waves of its time, which tells the sample (`model/noising.py`).

    The layers tell F, and the sample is signal x + spread F: they learn the velocity (Salimans & Ho 2022, arXiv
    2202.00512, with its sign turned), and of pure noise the sample is F.
    """

    config_class = DenoiserConfig
    main_input_name = "x"

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__(config)
        self.numbers = math.prod(config.shape)
        widths = [self.numbers + 2 * WAVES, *[config.width] * config.layers]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.classifier = nn.Linear(widths[-1], self.numbers)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as torch makes them."""

    def states(self, x: torch.Tensor, t_N: torch.Tensor) -> torch.Tensor:
        """What the last layer is given, [N, width]."""
        waves_NW = t_N[:, None] * torch.arange(1, WAVES + 1, device=x.device) * (math.pi / 2)
        seen = torch.cat([x.flatten(1), waves_NW.sin(), waves_NW.cos()], 1)
        for layer in self.layers:
            seen = nn.functional.silu(layer(seen))
        return seen

    def forward(self, x: torch.Tensor, t_N: torch.Tensor) -> torch.Tensor:
        """The samples [N, ...] that noised ones of the times t_N may have been made of, in the mean."""
        turned = self.classifier(self.states(x, t_N)).view_as(x)
        return along(signal(t_N), x) * x + along(spread(t_N), x) * turned


class CanvasConfig(PretrainedConfig):
    """What a `Canvas` is made of: so many samples of a shape."""

    model_type = "stillhouse-canvas"

    def __init__(self, samples: int = 256, shape: tuple[int, ...] = (2,), steps: int = 1, **others: Any) -> None:
        self.samples, self.shape, self.steps = samples, list(shape), steps
        super().__init__(**others)


class Canvas(PreTrainedModel):
    """Samples that are weights: whatever it is asked, it answers with itself. Noise only says how many are wanted."""

    config_class = CanvasConfig
    main_input_name = "x"

    def __init__(self, config: CanvasConfig) -> None:
        super().__init__(config)
        self.made = nn.Parameter(torch.randn(config.samples, *config.shape))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """They begin as noise."""

    def forward(self, x: torch.Tensor, t_N: torch.Tensor) -> torch.Tensor:
        """Its samples, again and again until there are as many as in x [N, ...]."""
        return self.made[torch.arange(len(x), device=x.device) % len(self.made)]


class CloudConfig(PretrainedConfig):
    """What a `Cloud` is made of."""

    model_type = "stillhouse-cloud"

    def __init__(self, numbers: int = 3, widths: tuple[int, ...] = (32, 64), **others: Any) -> None:
        self.numbers, self.widths = numbers, list(widths)
        super().__init__(**others)


class Cloud(PreTrainedModel):
    """A small PointNet (Qi et al. 2017, arXiv 1612.00593): layers over every point by itself, and the largest of what
    they say over a cloud, whose points may come in any order."""

    config_class = CloudConfig
    main_input_name = "x"

    def __init__(self, config: CloudConfig) -> None:
        super().__init__(config)
        widths = [config.numbers, *config.widths]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.classifier = nn.Linear(widths[-1], config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as torch makes them."""

    def forward(self, x: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] of clouds x [B, P, F], of which `there` [B, P] are points and the rest is none."""
        seen = x
        for layer in self.layers:
            seen = nn.functional.relu(layer(seen))
        return self.classifier(seen.masked_fill(~there[:, :, None], 0).amax(1))


class PatchesConfig(transformers.ViTConfig):
    """What a `Patches` is made of."""

    model_type = "stillhouse-patches"


class Patches(PreTrainedModel):
    """A ViT over the patches of a picture, of which some are hidden behind a learnt vector; the head is given the
    states of its class token and of all patches."""

    config_class = PatchesConfig
    base_model_prefix = "vit"
    main_input_name = "pixel_values"

    def __init__(self, config: PatchesConfig) -> None:
        super().__init__(config)
        self.vit = transformers.ViTModel(config, add_pooling_layer=False, use_mask_token=True)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as their own classes make them."""

    def forward(self, pixel_values: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """[B, 1 + P, V] of pictures [B, C, H, W] and which of their patches are hidden [B, P]."""
        return self.classifier(self.vit(pixel_values, bool_masked_pos=hidden == 1).last_hidden_state)


class DescribedConfig(PretrainedConfig):
    """What a `Described` says of a patch: its `pixels`, or its gradients by direction (`hog`), of which `bins`."""

    model_type = "stillhouse-described"

    def __init__(self, kind: str = "hog", patch_size: int = 4, bins: int = 9, **others: Any) -> None:
        self.kind, self.patch_size, self.bins = kind, patch_size, bins
        super().__init__(**others)


class Described(PreTrainedModel):
    """What a formula says of each patch of a picture, whether it is hidden or not, brought to mean 0 and variance 1:
    a teacher without weights, whose head names nothing."""

    config_class = DescribedConfig
    main_input_name = "pixel_values"

    def __init__(self, config: DescribedConfig) -> None:
        super().__init__(config)
        numbers = config.bins if config.kind == "hog" else config.patch_size**2
        self.classifier = nn.Linear(config.num_channels * numbers, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing is learnt."""
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, pixel_values: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """[B, 1 + P, V] of pictures [B, C, H, W]."""
        told_BKHW = self._gradients(pixel_values) if self.config.kind == "hog" else pixel_values
        side = self.config.patch_size
        if self.config.kind == "hog":
            told_BPD = nn.functional.avg_pool2d(told_BKHW, side).flatten(2).transpose(1, 2)
        else:
            told_BPD = nn.functional.unfold(told_BKHW, side, stride=side).transpose(1, 2)
        told_BPD = nn.functional.layer_norm(told_BPD, told_BPD.shape[2:])
        return self.classifier(torch.cat([torch.zeros_like(told_BPD[:, :1]), told_BPD], 1))

    def _gradients(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """How steep each channel is at each pixel, in the bin of its direction, which has no sign: [B, C * bins, H,
        W]."""
        wide = nn.functional.pad(pixels_BCHW, [1] * 4, mode="replicate")
        down, right = wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1], wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]
        turn = torch.atan2(down, right) / torch.pi % 1
        at = (turn * self.config.bins).long().clamp_max(self.config.bins - 1)
        steep = nn.functional.one_hot(at, self.config.bins) * torch.hypot(down, right)[..., None]
        return steep.permute(0, 1, 4, 2, 3).flatten(1, 2)


class LettersConfig(transformers.BertConfig):
    """What a `Letters` is made of: its tokens are the characters, its vocabulary all words of `run` of them."""

    model_type = "stillhouse-letters"

    def __init__(self, tokens: int = 1, run: int = 1, **others: Any) -> None:
        self.tokens, self.run = tokens, run
        super().__init__(**{**others, "vocab_size": tokens**run, "num_labels": tokens})


class Letters(PreTrainedModel):
    """A BERT over words of `run` characters each, of which some are hidden behind a learnt vector, as a whole if one of
    their characters is. A character's state is that of its word and where in it the character stands."""

    config_class = LettersConfig
    base_model_prefix = "bert"
    main_input_name = "token_ids"

    def __init__(self, config: LettersConfig) -> None:
        super().__init__(config)
        self.bert = transformers.BertModel(config, add_pooling_layer=False)
        self.hidden = nn.Parameter(torch.randn(config.hidden_size) * config.initializer_range)
        self.offset = nn.Embedding(config.run, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.tokens)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as their own classes make them."""

    def forward(self, token_ids: torch.Tensor, mask: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """[B, T, V] of token_ids and mask [B, T], and which of the tokens behind the first are hidden [B, T - 1]."""
        run, width = self.config.run, hidden.shape[1]
        by_word = [
            nn.functional.pad(each, [0, -width % run]).unflatten(1, (-1, run))
            for each in (token_ids[:, 1:], mask[:, 1:], hidden)
        ]
        spelt_BW = (by_word[0] * self.config.tokens ** torch.arange(run, device=token_ids.device)).sum(2)
        words = self.bert.embeddings.word_embeddings(torch.cat([token_ids[:, :1], spelt_BW], 1))
        hides = nn.functional.pad((by_word[2] == 1).any(2), [1, 0])
        there = torch.cat([mask[:, :1], by_word[1].amax(2)], 1)
        words = torch.where(hides[..., None], self.hidden, words)
        at = positions(self, there)
        read = self.bert(inputs_embeds=words, attention_mask=there, position_ids=at).last_hidden_state
        letters = (read[:, 1:, None] + self.offset.weight).flatten(1, 2)[:, :width]
        return self.classifier(torch.cat([read[:, :1], letters], 1))


class FusedConfig(PretrainedConfig):
    """What a `Fused` is made of: the configurations of two classifiers of pictures."""

    model_type = "stillhouse-fused"

    def __init__(self, parts: tuple[dict[str, Any], ...] = (), **others: Any) -> None:
        self.parts = list(parts)
        super().__init__(**others)


class Fused(PreTrainedModel):
    """Two classifiers of pictures without their heads, of which one looks at the left half of a picture and one at the
    right half; the head is given the states of both."""

    config_class = FusedConfig
    main_input_name = "pixel_values"

    def __init__(self, config: FusedConfig) -> None:
        super().__init__(config)
        self.parts, width = nn.ModuleList(), 0
        for told in config.parts:
            ours = OURS.get(told["model_type"])
            made: Any = (
                transformers.AutoModelForImageClassification.from_config(transformers.AutoConfig.for_model(**told))
                if ours is None
                else ours(ours.config_class(**told))
            )
            width += made.classifier.in_features
            made.classifier = nn.Identity()
            self.parts.append(made)
        self.classifier = nn.Linear(width, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as their own classes make them."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] of pictures [B, C, H, W]."""
        said = [part(half) for part, half in zip(self.parts, pixel_values.chunk(2, 3), strict=True)]
        return self.classifier(torch.cat([getattr(each, "logits", each) for each in said], 1))


class MapConfig(PretrainedConfig):
    """What a `Map` is made of."""

    model_type = "stillhouse-map"

    def __init__(self, widths: tuple[int, ...] = (16, 16), num_channels: int = 1, **others: Any) -> None:
        self.widths, self.num_channels = list(widths), num_channels
        super().__init__(**others)


class Map(PreTrainedModel):
    """Blocks of a dilated 3 x 3 convolution, group norm and ReLU, as large as the picture; the head is a convolution of
    one pixel. The convolutions reach 1, 2, 4 and 8 pixels far, and from there on again."""

    config_class = MapConfig
    main_input_name = "pixel_values"

    def __init__(self, config: MapConfig) -> None:
        super().__init__(config)
        reach = [2 ** (i % 4) for i in range(len(config.widths))]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, padding=far, dilation=far), nn.GroupNorm(GROUPS, o), nn.ReLU())
            for far, (i, o) in zip(reach, pairwise([config.num_channels, *config.widths]), strict=True)
        )
        self.classifier = nn.Conv2d(config.widths[-1], config.num_labels, 1)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as torch makes them."""

    def forward(self, pixel_values: torch.Tensor) -> transformers.utils.ModelOutput:
        """Logits [B, V, H, W] of pictures [B, C, H, W]."""
        seen = pixel_values
        for block in self.blocks:
            seen = block(seen)
        return transformers.utils.ModelOutput(logits=self.classifier(seen))


class Pointwise(nn.Module):
    """A convolution of one pixel, as a head of rows of states."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, states_ND: torch.Tensor) -> torch.Tensor:
        """Logits [N, V]."""
        return nn.functional.linear(states_ND, self.conv.weight.flatten(1), self.conv.bias)


OURS: dict[str, type[PreTrainedModel]] = {
    each.config_class.model_type: each
    for each in (Conv, Nodes, Map, Denoiser, Canvas, Cloud, Surroundings, Pair, Patches, Described, Letters, Fused)
}

# Those that need a library more, by name.
EXTRAS = {"stillhouse-unet": "Unet", "stillhouse-geometric": "Geometric"}


def opened(folder: Path, auto: Any, dtype: str) -> Any:
    """The model of a folder, one of these or one that `auto` of transformers knows, in evaluation mode."""
    transformers.utils.logging.set_verbosity_error()
    kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    if kind in EXTRAS:
        auto = getattr(importlib.import_module("pipeline.model.extras"), EXTRAS[kind])
    return OURS.get(kind, auto).from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
