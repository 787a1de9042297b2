"""Models with random weights, to be trained from nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.backend import LOCAL
from pipeline.kinds.origin import BACKENDS, Card, origin
from pipeline.model.folder import CAUSAL, PLACES, SPOKEN, STACKED, finish

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<assistant>")
# The prompt is padded with spaces to one width, so that an answer begins at one position.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "<assistant>{{ message['content'] }}{{ eos_token }}{% else %}{{ message['content'].ljust(WIDTH) }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


ENDS = {"bos": "s", "eos": "/s", "pad": "pad"}
PICTURE = "<image>"
SHOWING = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "<assistant>{{ message['content'] }}{{ eos_token }}{% elif message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


@origin(gives=LOCAL, backend=BACKENDS["transformers"], network=CAUSAL)
def gpt2(
    *,
    alphabet: str,
    prompt_width: NonNegativeInt,
    width: PositiveInt,
    layers: PositiveInt,
    heads: PositiveInt,
    context: PositiveInt,
    seed: int,
) -> Callable[[Path], Card]:
    """A GPT-2 over single characters: a token per character of `alphabet`, five special ones, random weights.

    Paper: Radford et al. 2019 (architecture).
    Differs: ReLU for GELU (a fifth faster on a CPU), no dropout.
    """

    def fill(out: Path) -> Card:
        import torch
        import transformers

        vocabulary = _characters(out, alphabet, SPECIAL, TEMPLATE.replace("WIDTH", str(prompt_width)))
        config = transformers.GPT2Config(
            vocab_size=len(vocabulary),
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            n_positions=context,
            activation_function="relu",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=vocabulary["<s>"],
            eos_token_id=vocabulary["</s>"],
            pad_token_id=vocabulary["<pad>"],
        )
        torch.manual_seed(seed)
        transformers.GPT2LMHeadModel(config).save_pretrained(out)
        return finish(out, "float32")

    return fill


@origin(gives=LOCAL, backend=SPOKEN[STACKED], network=STACKED)
def llava(
    *,
    alphabet: str,
    size: PositiveInt,
    patch: PositiveInt,
    width: PositiveInt,
    layers: PositiveInt,
    heads: PositiveInt,
    tower: PositiveInt,
    context: PositiveInt,
    seed: int,
) -> Callable[[Path], Card]:
    """A language model over single characters that is shown a picture in colours, of `size` by `size` pixels: CLIP's
    vision tower of `tower` layers over square patches, a projection, and Llama, random weights.

    Paper: Liu et al. 2023 (LLaVA, arXiv 2304.08485).
    Differs: tower and language model are as wide as each other, and neither is pretrained; all states of the last layer
    but the first are shown.
    """

    def fill(out: Path) -> Card:
        import torch
        import transformers

        if size % patch:
            raise Refused(f"fresh.llava: pictures of {size} x {size} are not whole patches of {patch}")
        vocabulary = _characters(out, alphabet, (*SPECIAL, PICTURE), SHOWING)
        patches = (size // patch) ** 2
        shape = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": heads}
        config = transformers.LlavaConfig(
            vision_config=transformers.CLIPVisionConfig(
                image_size=size, patch_size=patch, num_hidden_layers=tower, **shape
            ),
            text_config=transformers.LlamaConfig(
                vocab_size=len(vocabulary), num_hidden_layers=layers, max_position_embeddings=context, **shape,
                **{f"{name}_token_id": vocabulary[f"<{token}>"] for name, token in ENDS.items()},
            ),
            image_token_index=vocabulary[PICTURE], image_seq_length=patches, vision_feature_layer=-1,
            image_mean=[0.5] * 3, image_std=[0.5] * 3,
        )  # fmt: skip
        told = {
            "network": STACKED, "inputs": {"image": [size, size, 3]}, "image_token": vocabulary[PICTURE],
            "patches": patches,
        }  # fmt: skip
        (out / PLACES).write_text(json.dumps(told, sort_keys=True) + "\n", "utf-8")
        torch.manual_seed(seed)
        transformers.LlavaForConditionalGeneration(config).save_pretrained(out)
        return finish(out, "float32")

    return fill


def _characters(out: Path, alphabet: str, special: Sequence[str], template: str) -> dict[str, int]:
    """Write a tokenizer of single characters; returns its vocabulary."""
    import tokenizers
    import transformers
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

    vocabulary = {token: i for i, token in enumerate((*special, *alphabet))}
    core = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]" if "\n" in alphabet else "."), "isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=template,
    ).save_pretrained(out)
    return vocabulary
