"""A model folder loaded into this process with `transformers`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.methods import lazy
from pipeline.core.settings import RunSettings
from pipeline.errors import Refused
from pipeline.kinds.origin import FOUR_BITS

if TYPE_CHECKING:
    import torch
    import transformers
else:
    torch = lazy("torch")
    transformers = lazy("transformers")


def device_of(settings: RunSettings) -> str:
    """The device to run on: as set, or the GPU if there is one."""
    if settings.device != "auto":
        return settings.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def load(folder: Path, dtype: str) -> transformers.PreTrainedModel:
    """The causal language model of a folder, in evaluation mode; with `nf4` its linear layers are in four bits.

    GPT-2's activation is computed by one kernel of torch's in place of eight: the same formula, rounded otherwise.
    """
    # A mask is passed where it is needed; the advice to pass one always does not apply.
    transformers.utils.logging.set_verbosity_error()
    net = transformers.AutoModelForCausalLM.from_pretrained(folder, **_kept(folder, dtype)).eval()
    for module in list(net.modules()):
        for name, part in module.named_children():
            if type(part) is transformers.activations.NewGELUActivation:
                setattr(module, name, torch.nn.GELU("tanh"))
    return net


def positions(net: Any, token_ids: torch.Tensor) -> torch.Tensor | None:
    """Where tokens [B, T] stand, [B, T], if padding makes them wider than the model's context: all of it there stands
    at the last place, since no other has a weight. Nothing, which is in order, elsewhere."""
    context, width = getattr(net.config.get_text_config(), "max_position_embeddings", None), token_ids.shape[1]
    if context is None or width <= context:
        return None
    return torch.arange(width, device=token_ids.device).clamp(max=context - 1).expand_as(token_ids)


def _kept(folder: Path, dtype: str) -> dict[str, Any]:
    """How its weights are kept: as numbers of a dtype; or in four bits each, with the rest and all that is computed in
    bfloat16 (Dettmers et al. 2023, QLoRA, arXiv 2305.14314: NF4, its scales quantised too)."""
    if dtype != FOUR_BITS:
        return {"dtype": getattr(torch, dtype)}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise Refused(
            f"{folder.name} is to be in four bits (`{FOUR_BITS}`), which needs bitsandbytes: run `uv pip install -e "
            f"'.[quantised]'`, or leave `{FOUR_BITS}` out"
        )
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=FOUR_BITS,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"dtype": torch.bfloat16, "quantization_config": config}
