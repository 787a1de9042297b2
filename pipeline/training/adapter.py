"""What of a student learns, where not all of it does: low-rank adapters, or some of its modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
import transformers
from torch import nn

from pipeline.display import listed, nearest
from pipeline.errors import Refused
from pipeline.model import heads
from pipeline.training.recipe import Adapter

# GPT-2 keeps its matrices transposed, in a layer of its own.
LINEAR = (nn.Linear, transformers.pytorch_utils.Conv1D)


def with_adapter(model: nn.Module, adapter: Adapter) -> Any:
    """The model with low-rank adapters on all its linear layers but the heads, and on the stacked matrices [E, ., .] of
    experts; the gates that choose among experts stay as they are."""
    import peft

    head = getattr(model, "get_output_embeddings", lambda: None)()
    new = [getattr(model, name) for name in ("classifier", "score") if hasattr(model, name)]
    new += heads.of(model).values()
    apart = [head, *new]
    layers = [n for n, module in model.named_modules() if isinstance(module, LINEAR) and module not in apart]
    experts = [name for name, weight in model.named_parameters() if weight.ndim == 3]
    if experts and adapter.dropout:
        raise Refused(
            f"adapter.dropout: {adapter.dropout:g}: the experts of a mixture ({experts[0]}, ...) take adapters without "
            f"dropout only; write `dropout: 0`"
        )
    if experts and adapter.base:
        raise Refused(f"adapter.base: the experts of a mixture ({experts[0]}, ...) are in no four bits; leave it out")
    each: Any
    for each in model.modules():
        # On some CPUs a look at it in evaluation mode would put its weight into a form that no gradient passes.
        if hasattr(each, "support_avx512bf16_for_cpu"):
            each.support_avx512bf16_for_cpu = False
    if experts and adapter.dora:
        raise Refused(
            f"adapter.dora: the experts of a mixture ({experts[0]}, ...) take plain adapters only; leave `dora` out"
        )
    config = peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        use_dora=adapter.dora,
        target_modules=layers,
        target_parameters=experts or None,
        fan_in_fan_out=any(isinstance(m, transformers.pytorch_utils.Conv1D) for m in model.modules()),
        task_type="CAUSAL_LM" if isinstance(model, transformers.GenerationMixin) else None,
    )
    with _nameless(model):
        adapted = peft.get_peft_model(model, config)
    for module in new:
        # A classifier's head, and one beside a model's own, begins with nothing to adapt.
        module.requires_grad_(True)
    return adapted


def merged(net: Any, plain: Callable[[], nn.Module]) -> nn.Module:
    """The model with its adapters added to what they stand beside; where that is in four bits, to its values there, in
    the `plain` model."""
    if all(p.is_floating_point() for p in net.parameters()):
        whole: nn.Module = net.merge_and_unload()
        return whole
    import bitsandbytes
    import peft

    learnt: Any = net.base_model.model
    whole = plain()
    with torch.no_grad():
        for name, weight in learnt.named_parameters():
            if weight.is_floating_point() and "lora_" not in name:
                whole.get_parameter(name.replace(".base_layer", "")).copy_(weight)
        for name, module in learnt.named_modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                there: Any = whole.get_submodule(name)
                kept: Any = module.get_base_layer().weight
                values = bitsandbytes.functional.dequantize_4bit(kept.data, kept.quant_state)
                values = values.float() + module.get_delta_weight("default")
                there.weight.copy_(values.T if isinstance(there, transformers.pytorch_utils.Conv1D) else values)
    return whole


def only(model: nn.Module, patterns: Sequence[str], name: str) -> None:
    """Let those weights learn whose name, or the name of a module that they lie in, is like one of the patterns."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    found = {p: [n for n in weights if fnmatchcase(n, p) or fnmatchcase(n, f"{p}.*")] for p in patterns}
    for pattern in (p for p, names in found.items() if not names):
        modules = [n for n, _ in model.named_modules() if n]
        raise Refused(
            f"trainable: {pattern!r} is like no module of {name}{nearest(pattern, modules, 0.3)} It has "
            f"{listed(modules)}; `*` stands for any letters"
        )
    model.requires_grad_(False)
    for names in found.values():
        for each in names:
            weights[each].requires_grad_(True)


@contextmanager
def _nameless(model: Any) -> Iterator[None]:
    """peft takes `gate_proj` of a mixture, by the model's type, for the name that its experts had in transformers 4,
    and leaves out the dense and shared layers that are called so. What is targeted here needs no translation."""
    if not hasattr(model, "config"):
        yield
        return
    model.config.model_type = ""
    try:
        yield
    finally:
        del model.config.model_type
