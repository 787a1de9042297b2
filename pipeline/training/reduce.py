"""Losses of a step to one number, over micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from pipeline.kinds.objective import Loss, Reduced


def reduce(losses: Iterable[Loss], normaliser: float) -> torch.Tensor:
    """The weighted sum of the losses over `normaliser`: a scalar to call `backward` on.

    `normaliser` is the number of items of the whole step (`over_ranks` of the local number, known before the first
    forward pass), so the scalars of all micro-batches and ranks add up to the step's loss however it was cut. Data
    parallelism that averages gradients over ranks must therefore multiply by their number. No items give 0 with a
    gradient path, so that every rank takes part in the backward pass.
    """
    return sum((_weighted(loss) for loss in losses), start=torch.zeros(())) / max(normaliser, 1)


def summarise(losses: Sequence[Loss], normaliser: float) -> Reduced:
    """The numbers of a whole step, over micro-batches and ranks: the loss as `reduce` gives it, metrics as means."""
    names = sorted({name for loss in losses for name in loss.metrics})
    with torch.no_grad():
        sums = [
            sum(len(loss.value_N) for loss in losses),
            sum(float(_weighted(loss)) for loss in losses),
            *(sum(float(loss.metrics[name].sum()) for loss in losses) for name in names),
        ]
    items, value, *metrics = (over_ranks(x) for x in sums)
    means = {name: total / max(items, 1) for name, total in zip(names, metrics, strict=True)}
    return Reduced(value / max(normaliser, 1), int(items), means)


def over_ranks(local: float) -> float:
    """The sum of a number over all ranks; the number itself in a single process."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return local
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor(local, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return total.item()


def _weighted(loss: Loss) -> torch.Tensor:
    return (loss.value_N * loss.weight_N).sum()
