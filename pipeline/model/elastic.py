"""Models in models: an encoder of which only the last layers, and of these only the first numbers within, are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.errors import Refused

if TYPE_CHECKING:
    import torch


def layers_of(net: Any) -> list[Any]:
    """The layers of a BERT."""
    encoder = getattr(net.base_model, "encoder", None)
    found = list(getattr(encoder, "layer", ()))
    if not found or not hasattr(found[0], "intermediate"):
        raise Refused(f"{type(net).__name__} has no layers that could be left out; use BERT's kind of model")
    return found


@contextmanager
def used(net: Any, layers: int, width: int) -> Iterator[None]:
    """A context: the first layers are passed by, so that so many are left, and of what each has within so many numbers
    count. A network that has no more of either is whole."""
    every = layers_of(net)
    with ExitStack() as hooks:
        for number, layer in enumerate(every):
            if number < len(every) - layers:
                hooks.enter_context(layer.register_forward_hook(_passed_by))
            else:
                hooks.enter_context(layer.intermediate.register_forward_hook(partial(_narrow, width)))
        yield


def _passed_by(_layer: Any, given: tuple[torch.Tensor, ...], output: Any) -> Any:
    return (given[0], *output[1:]) if isinstance(output, tuple) else given[0]


def _narrow(width: int, _layer: Any, _given: Any, within: torch.Tensor) -> torch.Tensor:
    made = within.clone()
    made[..., width:] = 0
    return made
