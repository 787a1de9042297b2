"""Small models of this project's own, kept as transformers keeps its: `config.json` and `model.safetensors`.

Imports torch: whoever only names a method must not import it.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

GROUPS = 4


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
        seen = x
        for layer in self.layers:
            seen = nn.functional.relu(layer(self._around(seen, edges)))
            seen = nn.functional.dropout(seen, self.config.dropout, self.training)
        return self.classifier(self._around(seen, edges))

    def _around(self, seen: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        if not self.config.linked:
            return seen
        own = torch.arange(len(seen), device=seen.device)
        to, source = torch.cat([edges, own.expand(2, -1)], 1)
        root = torch.bincount(to, minlength=len(seen)).to(seen.dtype).rsqrt()
        share = root[to] * root[source]
        return torch.zeros_like(seen).index_add(0, to, seen[source] * share[:, None])


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
        read = self.bert(inputs_embeds=words, attention_mask=there).last_hidden_state
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


OURS: dict[str, type[PreTrainedModel]] = {
    "stillhouse-conv": Conv,
    "stillhouse-nodes": Nodes,
    "stillhouse-patches": Patches,
    "stillhouse-described": Described,
    "stillhouse-letters": Letters,
    "stillhouse-fused": Fused,
}


def opened(folder: Path, auto: Any, dtype: str) -> Any:
    """The model of a folder, one of these or one that `auto` of transformers knows, in evaluation mode."""
    transformers.utils.logging.set_verbosity_error()
    kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    return OURS.get(kind, auto).from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
