"""A model folder loaded into this process with `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core.methods import lazy
from pipeline.core.settings import RunSettings

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
    """The causal language model of a folder, in evaluation mode.

    GPT-2's activation is computed by one kernel of torch's in place of eight: the same formula, rounded otherwise.
    """
    # A mask is passed where it is needed; the advice to pass one always does not apply.
    transformers.utils.logging.set_verbosity_error()
    net = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    for module in list(net.modules()):
        for name, part in module.named_children():
            if type(part) is transformers.activations.NewGELUActivation:
                setattr(module, name, torch.nn.GELU("tanh"))
    return net
