"""Model folders: a plain transformers folder, its `tokenizer/`, and the card `model.json` with its identity."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from tokenizers import Tokenizer

from pipeline.errors import Refused
from pipeline.kinds.origin import BACKENDS, Card, Engine
from pipeline.model.chat import ENDS, Chat
from pipeline.tables import ids
from pipeline.tables.parquet import digest, short_hash

CAUSAL = "language.causal"
STACKED = "language.stacked"
# What runs a model of another network.
NETWORK = "network.local"
SPOKEN = {STACKED: "stacked.local"}
# What a model's places are, where they are no tokens: its network and the names of its outcomes.
PLACES = "places.json"
# What AdamW remembers of a training that was told to keep it; it decides no answer, and is in no identity.
MOMENTS = "moments/adamw.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json", PLACES,
    "preprocessor_config.json", "processor_config.json",
)  # fmt: skip


def network_of(form: Path) -> str:
    """The network that a model's `tokenizer/` is the form of: what its places are, where they are no tokens."""
    places = form / PLACES
    return json.loads(places.read_text("utf-8"))["network"] if places.exists() else CAUSAL


def hashes(form: Path) -> tuple[str, str]:
    """Of what renders a conversation, and of what cuts it and names its outcomes: `template_hash`, `tokenizer_hash`."""
    places = form / PLACES
    if not places.exists():
        return Chat(form).template_hash, Chat(form).tokenizer_hash
    cut = [Chat(form).tokenizer_hash] if (form / "tokenizer.json").exists() else []
    template = Chat(form).template_hash if network_of(form) in SPOKEN else ids.digest("template", None)
    return template, ids.digest("form", *cut, json.loads(places.read_text("utf-8")))


def context_of(folder: Path) -> int | None:
    """How many tokens a model can be shown, if it says so."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    text = {**config, **config.get("text_config", {})}
    places = text.get("max_position_embeddings", text.get("n_positions"))
    # Behind the first, a place may be a word of several tokens.
    return None if places is None else 1 + (places - 1) * text.get("run", 1)


def check_tokens(folder: Path) -> None:
    """Refuse a model whose tokenizer has a token that its embedding has no row for."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    rows = config.get("vocab_size", config.get("text_config", {}).get("vocab_size"))
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab(with_added_tokens=True)
    token = max(tokens, key=lambda name: tokens[name], default=None)
    if rows is not None and token is not None and tokens[token] >= rows:
        raise Refused(
            f"its tokenizer has the token {token!r} with the id {tokens[token]}, and its embedding has {rows} rows. "
            f"Resize it with `model.resize_token_embeddings(len(tokenizer))` and save both, or take the token out of "
            f"tokenizer.json"
        )


def finish(out: Path, dtype: str, engine: Engine = "transformers") -> Card:
    """Give a transformers folder its `tokenizer/`; returns its card.

    The identity is a hash of weights, config, tokenizer and template: all that decides an answer.
    """
    language, cuts = network_of(out) in (CAUSAL, *SPOKEN), (out / "tokenizer.json").exists()
    # What is shown arrays needs no tokenizer.
    if not cuts and (language or "inputs" not in json.loads((out / PLACES).read_text("utf-8"))):
        raise Refused("the model has no tokenizer.json; save its fast tokenizer into the same folder")
    if (
        language
        and not (out / "chat_template.jinja").exists()
        and "chat_template" not in json.loads((out / "tokenizer_config.json").read_text("utf-8"))
    ):
        raise Refused("the model has no chat template; put a chat_template.jinja beside its tokenizer.json")
    if cuts:
        check_tokens(out)
    ends = Chat(out).end_ids if language else ()
    (out / "tokenizer").mkdir()
    for name in TOKENIZER_FILES:
        if (out / name).exists():
            shutil.copyfile(out / name, out / "tokenizer" / name)
    total = short_hash()
    tokenizer = [out / name for name in TOKENIZER_FILES if (out / name).exists()]
    heads = sorted((out / "heads").glob("*"))
    for file in [*sorted(out.glob("*.safetensors")), out / "config.json", *tokenizer, *heads]:
        # save_pretrained leaves weights readable by their owner alone.
        file.chmod(0o644)
        total.update(file.name.encode() + bytes.fromhex(digest(file, hashlib.blake2b)))
    if len(ends) > 1:
        # The same weights that stop elsewhere answer otherwise.
        (out / "tokenizer" / ENDS[0]).write_text(json.dumps({"eos_token_id": list(ends)}) + "\n", "utf-8")
        total.update(json.dumps(ends).encode())
    if dtype != "float32":
        # The same weights at another precision answer otherwise, and must not be answered from the memo of these.
        total.update(dtype.encode())
    network = network_of(out)
    backend = BACKENDS[engine] if network == CAUSAL else SPOKEN.get(network, NETWORK)
    return {"backend": backend, "model_id": total.hexdigest(), "dtype": dtype}
