"""Models with random weights, to be trained from nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt

from pipeline.kinds.backend import LOCAL
from pipeline.kinds.origin import BACKENDS, Card, origin
from pipeline.model.folder import CAUSAL, finish

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<assistant>")
# The prompt is padded with spaces to one width, so that an answer begins at one position.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "<assistant>{{ message['content'] }}{{ eos_token }}{% else %}{{ message['content'].ljust(WIDTH) }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
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
        import tokenizers
        import torch
        import transformers
        from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

        vocabulary = {token: i for i, token in enumerate((*SPECIAL, *alphabet))}
        core = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
        core.decoder = decoders.Fuse()
        core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=core,
            bos_token="<s>",
            eos_token="</s>",
            pad_token="<pad>",
            unk_token="<unk>",
            chat_template=TEMPLATE.replace("WIDTH", str(prompt_width)),
        ).save_pretrained(out)
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
