"""Taps: what a model computes on the way, recorded by forward hooks."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.core.methods import lazy
from pipeline.errors import Refused

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class Taps(dict[str, "torch.Tensor"]):
    """A context: dotted names of a model's modules -> the output of each in the forward pass inside it."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.modules = {}
        known = dict(model.named_modules()) if names else {}
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, 3, 0.3)
                raise Refused(f"the model has no tap {name!r}; the nearest are {', '.join(near) or 'none'}, and `last`")
            self.modules[name] = known[name]

    def __enter__(self) -> Taps:
        def keeper(name: str) -> Any:
            def keep(_module: Any, _given: Any, output: Any) -> None:
                self[name] = output[0] if isinstance(output, tuple) else output

            return keep

        self.handles = [module.register_forward_hook(keeper(name)) for name, module in self.modules.items()]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
