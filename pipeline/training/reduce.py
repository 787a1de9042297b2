"""Losses of a step to one number, over micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from pipeline.kinds.objective import Loss, Reduced
from pipeline.training.ranks import over_ranks

# Among the totals of a step: the weighted sum of its losses, and the number of its items.
VALUE, ITEMS = "", " items"


def reduce(losses: Iterable[Loss], normaliser: float) -> torch.Tensor:
    """The weighted sum of the losses over `normaliser`: a scalar to call `backward` on.

    `normaliser` is the number of items of the whole step (`over_ranks` of the local number, known before the first
    forward pass), so the scalars of all micro-batches and ranks add up to the step's loss however it was cut, and
    their gradients to its gradient. No items give 0.
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
            metrics = {name: metric.sum() for name, metric in loss.metrics.items()}
            for name, each in {VALUE: _weighted(loss), **metrics}.items():
                self.totals.setdefault(name, torch.zeros((), dtype=torch.float64, device=each.device)).add_(each)

    def reduced(self, normaliser: float) -> Reduced:
        """The numbers of a step, over micro-batches and ranks: the loss as `reduce` gives it, metrics as means."""
        totals = over_ranks({ITEMS: self.items, VALUE: 0.0, **{name: float(of) for name, of in self.totals.items()}})
        items, value = totals.pop(ITEMS), totals.pop(VALUE)
        return Reduced(value / max(normaliser, 1), int(items), {n: totals[n] / max(items, 1) for n in sorted(totals)})


def summarise(losses: Iterable[Loss], normaliser: float) -> Reduced:
    """The numbers of a step that is made of these losses."""
    sums = Sums()
    for loss in losses:
        sums.add(loss)
    return sums.reduced(normaliser)


def _weighted(loss: Loss) -> torch.Tensor:
    return (loss.value_N * loss.weight_N).sum()


def items(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The items of several micro-batches, by unit."""
    total: dict[str, int] = {}
    for some in counts:
        for unit, count in some.items():
            total[unit] = total.get(unit, 0) + count
    return total
