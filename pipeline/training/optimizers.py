"""The optimizer of a recipe."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn

from pipeline.training.ranks import lies_over
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


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal: for every matrix, a step of one length in all directions.

    Jordan et al. 2024; the five Newton-Schulz steps and their coefficients are theirs. torch's own takes the rows of a
    weight for the layer's outputs, which GPT-2's are not, and computes in bfloat16, which a CPU without it is ten times
    slower at than in float32.
    """

    def __init__(self, groups: list[dict[str, Any]], momentum: float = 0.95) -> None:
        super().__init__(groups, {"momentum": momentum, "length": 1.0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for group in self.param_groups:
            alike = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[p.shape].append(p)
            for matrices in alike.values():
                self._move(group, matrices)
        return None

    def _move(self, group: dict[str, Any], matrices: list[torch.Tensor]) -> None:
        """Matrices of one shape, together."""
        directions = []
        for p in matrices:
            assert p.grad is not None
            held = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
            held.lerp_(p.grad, 1 - group["momentum"])
            directions.append(p.grad.lerp(held, group["momentum"]))
        for p, direction in zip(matrices, _orthogonal(torch.stack(directions)), strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(direction.to(p.dtype), alpha=-group["lr"] * group["length"])


def _orthogonal(matrices_LRC: torch.Tensor) -> torch.Tensor:
    """The nearest matrices with equal singular values, roughly: Newton-Schulz on each, over its shorter side."""
    x = matrices_LRC.bfloat16() if matrices_LRC.is_cuda else matrices_LRC.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if tall else x


def optimizer_for(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW on everything; or Muon on the matrices of the blocks at ten times the rate, and AdamW on the rest.

    Embeddings and the head are AdamW's. A step's length is sqrt(max(1, outputs / inputs)) of the layer, however its
    weight is stored.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    shapes = _matrices(model) if recipe.optimizer == "muon" else {}
    rest, by_length = [], defaultdict(list)
    for p in trained:
        if id(p) in shapes:
            outputs, inputs = shapes[id(p)]
            by_length[math.sqrt(max(1, outputs / inputs))].append(p)
        else:
            rest.append(p)
    rate, decay = recipe.learning_rate, recipe.weight_decay
    optimizers: list[torch.optim.Optimizer] = []
    # One kernel cannot take weights that lie over ranks together with whole ones.
    for alike in ([p for p in rest if lies_over(p) is split] for split in (False, True)):
        if alike:
            optimizers.append(torch.optim.AdamW(alike, lr=rate, betas=(0.9, 0.98), weight_decay=decay, fused=True))
    if by_length:
        common = {"lr": 10 * rate, "weight_decay": decay}
        optimizers.append(Muon([{"params": ps, "length": length, **common} for length, ps in by_length.items()]))
    return optimizers[0] if len(optimizers) == 1 else Pair(*optimizers)


def moments_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's moments of every weight, `first.<name>` and `second.<name>`, and how fast they forget, `betas`."""
    found = {"betas": torch.tensor(optimizer.param_groups[0]["betas"], dtype=torch.float64)}
    for name, weight in model.named_parameters():
        held = optimizer.state.get(weight, {})
        for order, key in (("first", "exp_avg"), ("second", "exp_avg_sq")):
            found[f"{order}.{name}"] = held.get(key, torch.zeros_like(weight)).detach().float().cpu().contiguous()
    return found


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
