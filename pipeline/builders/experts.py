"""Models whose layers are made many: several experts in place of one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveInt

from pipeline.core.methods import find, lazy
from pipeline.errors import Refused
from pipeline.kinds.backend import card_of
from pipeline.kinds.builder import Builder, builder
from pipeline.kinds.origin import Card
from pipeline.model import heads
from pipeline.model.folder import CAUSAL, STACKED, TOKENIZER_FILES, finish, network_of

if TYPE_CHECKING:
    import torch
    import transformers
else:
    torch = lazy("torch")
    transformers = lazy("transformers")

# What of a Llama's configuration a model of experts has too.
SHARED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "tie_word_embeddings",
    "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


@builder(bases=(CAUSAL, STACKED), donors=(), keeps=False, random=True, finds=("network",))
def upcycled(*, experts: Annotated[int, Field(ge=2)] = 4, chosen: PositiveInt = 2) -> Builder:
    """A Llama, alone or under a vision tower, with so many experts in each layer, of which a router picks `chosen` for
    a token. All experts begin as the layer that they are made of, so that it says what the base said, but for rounding;
    routers begin at random, from the seed.

    `routing.balance` keeps the experts in use, with the tap `model.language_model.layers.0.mlp.gate`, or
    `model.layers.0.mlp.gate` where there is no tower.
    Paper: Komatsuzaki et al. 2023 (sparse upcycling, arXiv 2212.05055); Shu et al. 2024 (LLaVA-MoD, arXiv 2408.15881),
    its student.
    Differs: every layer is made so, where LLaVA-MoD makes every other one; the made model is a Mixtral.
    """
    if chosen > experts:
        raise Refused(f"experts.upcycled: {chosen} of {experts} experts cannot be chosen; ask for fewer, or make more")

    def make(base: Path, donor: Path, out: Path, seed: int) -> Card:
        network = find("network", network_of(base / "tokenizer")).factory()
        net: Any = network.load(base, "float32")
        told = net.config.get_text_config()
        if told.model_type != "llama" or told.attention_bias or told.mlp_bias or heads.of(net):
            raise Refused(f"{base.name} is no Llama without biases and without heads beside its own; take another base")
        torch.manual_seed(seed)
        given = {name: getattr(told, name) for name in SHARED}
        text = transformers.MixtralConfig(num_local_experts=experts, num_experts_per_tok=chosen, **given)
        if told is net.config:
            made: Any = transformers.MixtralForCausalLM(text)
        else:
            made = type(net)(type(net.config)(**{**net.config.to_dict(), "text_config": text}))
        made.load_state_dict({**made.state_dict(), **_copied(net.state_dict(), experts)})
        dtype = card_of(base)["dtype"]
        network.save(made.to(getattr(torch, dtype)), out)
        for file in TOKENIZER_FILES:
            if (base / file).exists():
                shutil.copyfile(base / file, out / file)
        return finish(out, dtype)

    return make


def _copied(weights: dict[str, torch.Tensor], experts: int) -> dict[str, torch.Tensor]:
    """A Llama's weights under the names of a Mixtral, each layer's own once for every expert."""
    found = dict(weights)
    for layer in [name.removesuffix("gate_proj.weight") for name in weights if name.endswith(".mlp.gate_proj.weight")]:
        gate, up, down = (found.pop(f"{layer}{name}_proj.weight") for name in ("gate", "up", "down"))
        found[f"{layer}experts.gate_up_proj"] = torch.cat([gate, up]).expand(experts, -1, -1)
        found[f"{layer}experts.down_proj"] = down.expand(experts, -1, -1)
    return found
