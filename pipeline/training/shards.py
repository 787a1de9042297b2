"""Shards: a student too large for one device, whose blocks lie over the ranks (`run: {ranks: 2, shard: true}`).

Of every weight in a block, of its gradient and of its moments, a rank holds its part; a block is put together when a
batch goes through it, and taken apart again. What stands outside of blocks, such as a head, every rank holds whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from pipeline.errors import Refused
from pipeline.training.ranks import here, lies_over, over_ranks

# What AdamW remembers of a weight.
MOMENTS = ("exp_avg", "exp_avg_sq")
# What `clip_grad_norm_` adds to a norm.
LEAST = 1e-6


def split(net: nn.Module, device: str, name: str) -> None:
    """Lay the blocks of a model over the ranks, on their devices."""
    kinds = getattr(net, "_no_split_modules", None) or ()
    blocks = [module for module in net.modules() if type(module).__name__ in kinds]
    if not blocks:
        raise Refused(f"run.shard: {name}'s network names no blocks that ranks could share; write `shard: false`")
    # Most trainings need none of it, and it takes as long to import as a small one's first steps.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device, (here().of,))
    for block in blocks:
        # Taken apart after a look, too, so that its weights are always those that an optimizer and a checkpoint know.
        shared = fully_shard(block, mesh=mesh, reshard_after_forward=True)
        # Losses are shares of a sum over all ranks, so gradients are added up as they are.
        shared.set_gradient_divide_factor(1.0)
        shared.set_force_sum_reduction_for_comms(True)


def is_split(module: nn.Module) -> bool:
    """Whether blocks of a module lie over the ranks."""
    return any(map(lies_over, module.parameters()))


def own(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor, which may be all of it."""
    part: torch.Tensor = tensor.to_local() if lies_over(tensor) else tensor  # type: ignore[attr-defined]
    return part


def clip(parameters: Iterable[nn.Parameter], most: float) -> float:
    """Make all gradients together no longer than this, as `clip_grad_norm_` does; returns how long they were."""
    every = list(parameters)
    if not any(map(lies_over, every)):
        return float(nn.utils.clip_grad_norm_(every, most))
    norm = length(p.grad for p in every if p.grad is not None)
    for p in every:
        if p.grad is not None:
            own(p.grad).mul_(min(1.0, most / (norm + LEAST)))
    return norm


def length(tensors: Iterable[torch.Tensor]) -> float:
    """The norm of tensors, some of which may lie over the ranks, which all ask for it."""
    squares = {True: 0.0, False: 0.0}
    for tensor in tensors:
        squares[lies_over(tensor)] += float(own(tensor).norm()) ** 2
    return math.sqrt(squares[False] + over_ranks({"split": squares[True]})["split"])


def gathered(net: nn.Module) -> dict[str, torch.Tensor]:
    """All weights of a model whose blocks lie over the ranks, for the first rank; the others help, and get none."""
    found = {}
    for name, p in net.named_parameters():
        weight: torch.Tensor = p.detach().full_tensor() if lies_over(p) else p.detach()  # type: ignore[attr-defined]
        if here().first:
            found[name] = weight.cpu()
    return found


def filled(net: nn.Module, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """A model in one piece with these weights, which are all of its own."""
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(weights[name])
    return net


def save(net: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Keep a model and its moments; every rank writes its part."""
    from torch.distributed import checkpoint

    checkpoint.save(_held(net, optimizer), checkpoint_id=folder)


def load(net: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Make a model and its moments what was kept; every rank reads its part."""
    from torch.distributed import checkpoint

    # Its table of contents is a pickle, which the same training wrote into its scratch folder.
    checkpoint.load(_held(net, optimizer), checkpoint_id=folder)


def _held(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The weights and moments of a model by name. One that has not learnt has moments of zero, as AdamW's begin."""
    found = {name: p.detach() for name, p in net.named_parameters()}
    names = {p: name for name, p in net.named_parameters()}
    for each in getattr(optimizer, "optimizers", [optimizer]):
        for p in (p for group in each.param_groups for p in group["params"]):
            state = each.state[p]
            if not state:
                state |= {"step": torch.zeros((), device=p.device), **{key: torch.zeros_like(p) for key in MOMENTS}}
            found |= {f"{key}.{names[p]}": value for key, value in state.items()}
    return found
