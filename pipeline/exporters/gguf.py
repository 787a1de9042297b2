"""Models as GGUF files, which llama.cpp and what is built on it run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.core.methods import lazy
from pipeline.errors import Refused
from pipeline.kinds.exporter import Exporter, Shape, exporter
from pipeline.model.chat import Chat

if TYPE_CHECKING:
    import gguf
    import safetensors
else:
    gguf = lazy("gguf")
    safetensors = lazy("safetensors")

FILE = "model.gguf"
# How llama.cpp names ways to cut a text before the merges, by what tokenizer.json says of it.
CUTS = {
    "smollm": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
USE = "`llama-cli -m model.gguf`, or any other program on llama.cpp. Weights are not quantised."


@exporter(reads="model")
def llama(*, dtype: Literal["float32", "float16"] = "float32") -> Exporter:
    """A Llama model with its tokenizer and template in one file; matrices in `dtype`, norms in float32.

    Paper: none; the format is llama.cpp's, written by its own package `gguf`.
    Differs: other architectures, biases, scaled positions, and tokenizers that it would cut otherwise are refused.
    """

    def write(folder: Path, out: Path) -> Shape:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        rope = _checked(config)
        heads, width = config["num_attention_heads"], config["hidden_size"]
        groups, size = config.get("num_key_value_heads", heads), config.get("head_dim") or width // heads
        try:
            writer = gguf.GGUFWriter(out / FILE, "llama")
        except ModuleNotFoundError as error:
            raise Refused("the package gguf is not installed: run `pip install gguf` in this environment") from error
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(width)
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(heads)
        writer.add_head_count_kv(groups)
        writer.add_key_length(size)
        writer.add_value_length(size)
        writer.add_rope_dimension_count(size)
        writer.add_rope_freq_base(rope)
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_vocab_size(config["vocab_size"])
        writer.add_file_type(gguf.LlamaFileType.ALL_F32 if dtype == "float32" else gguf.LlamaFileType.MOSTLY_F16)
        _add_tokenizer(writer, folder, config["vocab_size"])
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
        for name, weight in _weights(folder):
            if name == "lm_head.weight" and config.get("tie_word_embeddings"):
                continue
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                weight = _interleaved(weight, heads if "q_proj" in name else groups)
            named = names.get_name(name, try_suffixes=(".weight",))
            if named is None:
                raise Refused(f"{folder.name}: its weight {name} has no place in a GGUF file of a Llama model")
            writer.add_tensor(named, weight if weight.ndim == 1 else weight.astype(dtype))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return Shape(0, "", USE, {})

    return write


def _checked(config: Mapping[str, Any]) -> float:
    """The base of the positions' frequencies, of a model that a GGUF file can hold as it is."""
    if config["model_type"] != "llama":
        raise Refused(
            f"a model of the architecture {config['model_type']} is not written as GGUF here, only llama is; export it "
            f"with `hub.model` and use llama.cpp's own converter"
        )
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10_000.0)}
    odd = [key for key in ("attention_bias", "mlp_bias") if config.get(key)]
    odd += ["rope_parameters"] if rope.get("rope_type", "default") != "default" or config.get("rope_scaling") else []
    if odd:
        raise Refused(f"a Llama model with {', '.join(odd)} is not written as GGUF here; export it with `hub.model`")
    return float(rope["rope_theta"])


def _weights(folder: Path) -> Any:
    for file in sorted(folder.glob("*.safetensors")):
        # torch reads bfloat16, which numpy does not know.
        with safetensors.safe_open(file, "pt") as tensors:
            yield from ((name, tensors.get_tensor(name).float().numpy()) for name in tensors.keys())  # noqa: SIM118


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a projection in the order of llama.cpp, which rotates neighbours where transformers rotates halves."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _add_tokenizer(writer: Any, folder: Path, vocabulary: int) -> None:
    told = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    pieces = told["pre_tokenizer"] or {}
    cut = next((name for name, known in CUTS.items() if pieces.get("pretokenizers") == known), None)
    if told["model"]["type"] != "BPE" or cut is None or told["normalizer"]:
        raise Refused(
            f"{folder.name}: llama.cpp may cut texts otherwise than its tokenizer.json, whose pre-tokenizer is "
            f"{json.dumps(pieces)[:200]}; only {', '.join(CUTS)} is known to be cut alike. Export it with `hub.model`"
        )
    kinds = gguf.TokenType
    tokens = [(f"[PAD{i}]", kinds.UNUSED) for i in range(vocabulary)]
    for text, i in told["model"]["vocab"].items():
        tokens[i] = (text, kinds.NORMAL)
    for added in told["added_tokens"]:
        tokens[added["id"]] = (added["content"], kinds.CONTROL if added["special"] else kinds.USER_DEFINED)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in told["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_types([int(kind) for _, kind in tokens])
    writer.add_token_merges(merges)
    chat = Chat(folder)
    first, *others = chat.end_ids
    writer.add_eos_token_id(first)
    for other in others[:1]:
        writer.add_eot_token_id(other)
    writer.add_add_bos_token(False)
    writer.add_chat_template(chat.template_text)
