"""The optimizer of a recipe."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn

from pipeline.training.recipe import Recipe


class Pair(torch.optim.Optimizer):
    """Several optimizers over disjoint parameters as one."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers
        super().__init__([group for o in optimizers for group in o.param_groups], {})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for optimizer in self.optimizers:
            optimizer.step()
        return None

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"optimizers": [o.state_dict() for o in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.param_groups = [group for o in self.optimizers for group in o.param_groups]


def optimizer_for(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW on everything; or Muon on the matrices of the blocks at ten times the rate, and AdamW on the rest.

    Muon: Jordan et al. 2024; embeddings and the head are AdamW's, as there. A step's length is set by a layer's shape
    [out, in], however its weight is stored.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    shapes = _matrices(model) if recipe.optimizer == "muon" else {}
    rest, by_length = [], defaultdict(list)
    for p in trained:
        if id(p) in shapes:
            # Muon takes the rows of a weight for the layer's outputs.
            (rows, columns), (outputs, inputs) = p.shape, shapes[id(p)]
            by_length[math.sqrt(max(1, outputs / inputs) / max(1, rows / columns))].append(p)
        else:
            rest.append(p)
    rate, decay = recipe.learning_rate, recipe.weight_decay
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        optimizers.append(torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=decay, fused=True))
    if by_length:
        # Decay is a share of the rate, so what is longer must decay by a smaller share.
        groups = [{"params": ps, "lr": 10 * rate * x, "weight_decay": decay / x} for x, ps in by_length.items()]
        optimizers.append(torch.optim.Muon(groups, adjust_lr_fn="original"))
    return optimizers[0] if len(optimizers) == 1 else Pair(*optimizers)


def _matrices(model: nn.Module) -> dict[int, tuple[int, int]]:
    """Id of every trained weight that is the matrix of a layer, to the layer's (outputs, inputs): not embeddings, not
    the head, which maps to the vocabulary too."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    outside = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding) or m is head}
    found: dict[int, tuple[int, int]] = {}
    for module in model.modules():
        for p in module.parameters(recurse=False):
            if p.requires_grad and p.ndim == 2 and id(p) not in outside:
                rows, columns = p.shape
                # GPT-2's Conv1D keeps [in, out].
                transposed = isinstance(module, transformers.pytorch_utils.Conv1D)
                found[id(p)] = (columns, rows) if transposed else (rows, columns)
    return found
