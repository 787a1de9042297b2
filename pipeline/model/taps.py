"""Taps: what a model computes on the way, recorded by forward hooks, or put there in its place."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
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
        self.modules = _modules(model, names, ", and `last`")

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


@contextmanager
def put(model: torch.nn.Module, made: Mapping[str, Callable[[torch.Tensor], torch.Tensor]]) -> Iterator[None]:
    """A context: what some modules give, by dotted name, is what a function makes of it, and the model goes on from
    there. One with frozen weights hands a gradient on to what is put."""
    with ExitStack() as hooks:
        for name, module in _modules(model, made).items():
            hooks.enter_context(module.register_forward_hook(partial(_replaced, made[name])))
        yield


def _replaced(make: Callable[[torch.Tensor], torch.Tensor], _module: Any, _given: Any, output: Any) -> Any:
    return (make(output[0]), *output[1:]) if isinstance(output, tuple) else make(output)


def _modules(model: torch.nn.Module, names: Iterable[str], also: str = "") -> dict[str, torch.nn.Module]:
    known = dict(model.named_modules()) if names else {}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, 0.3)
            raise Refused(f"the model has no tap {name!r}; the nearest are {', '.join(near) or 'none'}{also}")
    return {name: known[name] for name in names}
