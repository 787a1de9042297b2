"""Encoders of text made here, with random weights: what a small classifier begins with."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from pipeline.kinds.backend import LOCAL
from pipeline.kinds.origin import Card, origin
from pipeline.model.folder import NETWORK, PLACES, finish

SPECIAL = ("<pad>", "<unk>", "<cls>")


@origin(gives=LOCAL, backend=NETWORK, network="classifier.text")
def bert(
    *,
    alphabet: str,
    outcomes: tuple[str, ...],
    width: PositiveInt,
    layers: PositiveInt,
    heads: PositiveInt,
    context: PositiveInt,
    seed: int,
) -> Callable[[Path], Card]:
    """A BERT classifier over single characters: a token per character of `alphabet`, a column per name of `outcomes`.

    Paper: Devlin et al. 2019 (architecture).
    Differs: no dropout; a text begins with one special token and has no end token.
    """

    def fill(out: Path) -> Card:
        import torch
        import transformers

        vocabulary = _cut(out, alphabet, "classifier.text", outcomes)
        config = transformers.BertConfig(
            vocab_size=len(vocabulary), num_labels=len(outcomes), **_encoder(width, layers, heads, context)
        )
        torch.manual_seed(seed)
        transformers.BertForSequenceClassification(config).save_pretrained(out)
        return finish(out, "float32")

    return fill


@origin(gives=LOCAL, backend=NETWORK, network="language.masked")
def masked(
    *,
    alphabet: str,
    width: PositiveInt,
    layers: PositiveInt,
    heads: PositiveInt,
    context: PositiveInt,
    seed: int,
    run: PositiveInt = 1,
) -> Callable[[Path], Card]:
    """A masked language model over the characters of `alphabet`, with the encoder of `text.bert`; with `run` it reads
    so many of them as one word, and still names each.

    Models of another `run` have the same places, so one can teach the other what a character means in its word.

    Paper: Devlin et al. 2019 (BERT, arXiv 1810.04805); Ji et al. 2021 (DNABERT), words of k characters.
    Differs: no dropout; words do not overlap, as in later models of DNA.
    """

    def fill(out: Path) -> Card:
        import torch

        from pipeline.model.nets import Letters, LettersConfig

        vocabulary = _cut(out, alphabet, "language.masked", (*SPECIAL, *dict.fromkeys(alphabet)))
        torch.manual_seed(seed)
        config = LettersConfig(tokens=len(vocabulary), run=run, **_encoder(width, layers, heads, context))
        Letters(config).save_pretrained(out)
        return finish(out, "float32")

    return fill


def _cut(out: Path, alphabet: str, network: str, outcomes: Sequence[str]) -> dict[str, int]:
    """Write the tokenizer of single characters and the form of a network; returns the tokens."""
    import tokenizers
    import transformers
    from tokenizers import AddedToken, Regex, models, pre_tokenizers

    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *dict.fromkeys(alphabet)))}
    core = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.normalizer = tokenizers.normalizers.Prepend("<cls>")
    core.pre_tokenizer = pre_tokenizers.Split(Regex("<cls>|."), "isolated")
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL[:2]])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", eos_token="<pad>"
    ).save_pretrained(out)
    told = {"network": network, "outcomes": list(outcomes)}
    (out / PLACES).write_text(json.dumps(told, sort_keys=True) + "\n", "utf-8")
    return vocabulary


def _encoder(width: int, layers: int, heads: int, context: int) -> dict[str, Any]:
    """What the configuration of a BERT says of its size."""
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "max_position_embeddings": context,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 0,
    }
