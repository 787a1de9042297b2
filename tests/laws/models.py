"""Small models with random weights, of every class that a network here takes."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from pipeline.nets.denoisers import Denoiser, DenoiserConfig
from pipeline.nets.graphs import Nodes, NodesConfig
from pipeline.nets.letters import Letters, LettersConfig
from pipeline.nets.pairs import Pair, PairConfig
from pipeline.nets.pictures import Conv, ConvConfig, Map, MapConfig, Patches, PatchesConfig
from pipeline.nets.points import Cloud, CloudConfig, Surroundings, SurroundingsConfig

VOCABULARY = 24
NAMES = ("example_id", "prompt_id", "token_ids", "spans", "weight")
SHAPE: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1}
LLAMA: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip


def gpt2() -> torch.nn.Module:
    config = transformers.GPT2Config(n_positions=40, n_embd=16, n_layer=2, n_head=2, **SHAPE)
    return transformers.GPT2LMHeadModel(config).eval()


def llama() -> torch.nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE, **LLAMA)).eval()


def gemma() -> torch.nn.Module:
    """Its logits are more than its head: they are capped."""
    return transformers.Gemma2ForCausalLM(
        transformers.Gemma2Config(**SHAPE, **LLAMA, final_logit_softcapping=0.5)
    ).eval()


PATCHES, IMAGE = 4, 2


def llava() -> torch.nn.Module:
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(image_size=8, patch_size=4, num_hidden_layers=1, **shape),
        text_config=transformers.LlamaConfig(**SHAPE, num_hidden_layers=2, pad_token_id=0, **shape),
        image_token_index=IMAGE, vision_feature_layer=-1, image_mean=[0.5] * 3, image_std=[0.25] * 3,
    )  # fmt: skip
    return transformers.LlavaForConditionalGeneration(config).eval()


def bert() -> torch.nn.Module:
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=40, num_labels=3,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config).eval()


PICTURE = {"num_channels": 3, "num_labels": 3, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}


def vit() -> torch.nn.Module:
    config = transformers.ViTConfig(
        image_size=[8, 8], patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **PICTURE,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config).eval()


def deit() -> torch.nn.Module:
    config = transformers.DeiTConfig(
        image_size=[8, 8], patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **PICTURE,
    )  # fmt: skip
    return transformers.DeiTForImageClassification(config).eval()


def conv() -> torch.nn.Module:
    return Conv(ConvConfig(widths=(8, 16), **PICTURE)).eval()


def segformer() -> torch.nn.Module:
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[1, 1], hidden_sizes=[8, 16], patch_sizes=[3, 3], strides=[2, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, **PICTURE,
    )  # fmt: skip
    return transformers.SegformerForSemanticSegmentation(config).eval()


def pixelwise() -> torch.nn.Module:
    return Map(MapConfig(widths=(8, 16), **PICTURE)).eval()


def points() -> torch.nn.Module:
    """Heat maps of three points, of 4 x 4 pixels."""
    return Map(MapConfig(widths=(8, 16), image_size=[4, 4], **PICTURE)).eval()


NODES: dict[str, Any] = {"numbers": 3, "widths": (12, 16), "num_labels": 3}


def gcn() -> torch.nn.Module:
    return Nodes(NodesConfig(linked=True, **NODES)).eval()


def mlp() -> torch.nn.Module:
    return Nodes(NodesConfig(linked=False, **NODES)).eval()


def patched() -> torch.nn.Module:
    config = PatchesConfig(
        image_size=[8, 8], patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **{**PICTURE, "num_labels": 1},
    )  # fmt: skip
    return Patches(config).eval()


LETTERS: dict[str, Any] = {
    "tokens": 6, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 41, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def letters() -> torch.nn.Module:
    return Letters(LettersConfig(**LETTERS)).eval()


def words() -> torch.nn.Module:
    """It reads three letters as one word."""
    return Letters(LettersConfig(run=3, **LETTERS)).eval()


def pointnet() -> torch.nn.Module:
    return Cloud(CloudConfig(widths=(12, 16), num_labels=3)).eval()


def surroundings() -> torch.nn.Module:
    return Surroundings(SurroundingsConfig(widths=(16, 16), neighbours=3, num_labels=3)).eval()


def pair() -> torch.nn.Module:
    return Pair(PairConfig((3, 5), 16, num_labels=3)).eval()


def denoiser() -> torch.nn.Module:
    return Denoiser(DenoiserConfig(width=16, layers=2)).eval()


def painter() -> torch.nn.Module:
    return Denoiser(DenoiserConfig(shape=(1, 3, 4), width=16, layers=2)).eval()
