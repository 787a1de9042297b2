"""Encoders of text made here, with random weights: what a small classifier begins with."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic import PositiveInt

from pipeline.kinds.backend import LOCAL
from pipeline.kinds.origin import Card, origin
from pipeline.model.folder import NETWORK, PLACES, TOKENIZER_FILES, finish

SPECIAL = ("<pad>", "<unk>", "<cls>")
# What the configuration of a BERT says of its encoder.
SIZES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "pad_token_id",
)  # fmt: skip


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
        import tokenizers
        import torch
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
        (out / PLACES).write_text(
            json.dumps({"network": "classifier.text", "outcomes": list(outcomes)}, sort_keys=True) + "\n", "utf-8"
        )
        config = transformers.BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            max_position_embeddings=context,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=len(outcomes),
            pad_token_id=vocabulary["<pad>"],
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
        import transformers

        from pipeline.nets.letters import Letters, LettersConfig

        letters = (*SPECIAL, *dict.fromkeys(alphabet))
        with tempfile.TemporaryDirectory() as place:
            begins = Path(place)
            bert(
                alphabet=alphabet, outcomes=letters, width=width, layers=layers, heads=heads, context=context, seed=seed
            )(begins)
            told = transformers.BertConfig.from_pretrained(begins).to_dict()
            for name in TOKENIZER_FILES:
                if (begins / name).exists():
                    shutil.copyfile(begins / name, out / name)
        form = {"network": "language.masked", "outcomes": list(letters)}
        (out / PLACES).write_text(json.dumps(form, sort_keys=True) + "\n", "utf-8")
        sizes = {name: told[name] for name in SIZES}
        torch.manual_seed(seed)
        Letters(LettersConfig(tokens=len(letters), run=run, **sizes)).save_pretrained(out)
        return finish(out, "float32")

    return fill
