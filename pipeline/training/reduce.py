"""Losses of a step to one number, over micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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


@dataclass
class Sums:
    """What the losses of a step came to so far.

    Of a loss nothing is kept: a few bytes that outlive a chunk of logits keep the allocator from giving its room to the
    next one.
    """

    items: int = 0
    totals: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, loss: Loss) -> None:
        """Take in the losses of some items."""
        self.items += len(loss.value_N)
        with torch.no_grad():
            for name, each in {"": _weighted(loss), **{n: metric.sum() for n, metric in loss.metrics.items()}}.items():
                self.totals.setdefault(name, torch.zeros((), dtype=torch.float64, device=each.device)).add_(each)

    def reduced(self, normaliser: float) -> Reduced:
        """The numbers of a step, over micro-batches and ranks: the loss as `reduce` gives it, metrics as means."""
        names = sorted({"", *self.totals})
        items, value, *metrics = map(over_ranks, (self.items, *(float(self.totals.get(name, 0)) for name in names)))
        means = {name: total / max(items, 1) for name, total in zip(names[1:], metrics, strict=True)}
        return Reduced(value / max(normaliser, 1), int(items), means)


def summarise(losses: Iterable[Loss], normaliser: float) -> Reduced:
    """The numbers of a step that is made of these losses."""
    sums = Sums()
    for loss in losses:
        sums.add(loss)
    return sums.reduced(normaliser)


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


def items(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The items of several micro-batches, by unit."""
    total: dict[str, int] = {}
    for some in counts:
        for unit, count in some.items():
            total[unit] = total.get(unit, 0) + count
    return total
