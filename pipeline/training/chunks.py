"""The head, applied to the places of a batch some at a time, with the gradient formed at once.

Logits over a vocabulary are the largest tensor of a training step, and their gradient is as large. Here neither exists
for more than a block of places: the block's logits are made, the objectives are called on some rows of them at a time,
their gradient takes the place of the logits and goes on to the states and the head. A block is what a matrix product
needs, a chunk of its rows is what fits into a processor's cache.

N places, D the width of the states, V outcomes, B places of a block, C of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Bytes of a chunk's logits: an objective makes up to ten tensors of that size. FEW: the rows that it has at least.
CHUNK = {"cpu": 1 << 20, "cuda": 512 << 20}
FEW = 4
# Places of a block, or those of a chunk where these are more. A product of fewer is mostly the reading of the head.
BLOCK = {"cpu": 256, "cuda": 2048}

# (logits [C, V], the slice of their places, the frozen networks' logits [C, V] there) to a scalar.
Value = Callable[..., Tensor]


def loss_in_chunks(
    states_ND: Tensor,
    head: nn.Module,
    value: Value,
    *,
    frozen: Sequence[tuple[Tensor, nn.Module]] = (),
    others: Sequence[Tensor] = (),
    block: int | None = None,
    rows: int | None = None,
) -> Tensor:
    """The sum of `value` over chunks of places: a scalar whose backward hands on the gradient of the whole.

    `value(logits_CV, at, *frozen_CV)` is a chunk's scalar, weighted and normalised; `at` is the slice of its places,
    logits are float32 or wider. `head` maps [B, D] to [B, V]: an `nn.Linear`, or any module, for which a gradient of
    its weights is made per block. What follows a linear head (a soft cap, a scale) belongs into `value`. `frozen` are
    states and head of every network that is only looked at, whose logits `value` gets too. `others` are all further
    tensors with a gradient that `value` reads, as the parameters of an objective's own module: one that is not named
    is refused. No places give 0 and a gradient of zeros. Backward works once. Under `torch.no_grad` it is the sum
    alone. Logits are written over once `value` is done with them: what it keeps of them, it copies.
    """
    weights = tuple(p for p in head.parameters() if p.requires_grad)
    with torch.no_grad():
        vocabulary = head(states_ND[:0]).shape[1]
    work = _Work(head, value, frozen, weights, tuple(others), block, rows, vocabulary, states_ND.device.type)
    if torch.is_grad_enabled():
        return _Loss.apply(work, states_ND, *weights, *others)
    return work.run(states_ND, None)


class _Loss(torch.autograd.Function):
    """Forms the gradient on the way forward; backward multiplies it by what comes from above."""

    @staticmethod
    def forward(ctx: Any, work: _Work, *tensors: Tensor) -> Tensor:
        sums: list[Any] = [torch.zeros_like(tensors[0]), *(None for _ in tensors[1:])]
        total = work.run(tensors[0], sums)
        ctx.sums = [torch.zeros_like(t) if s is None else s for s, t in zip(sums, tensors, strict=True)]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        sums, ctx.sums = ctx.sums, None
        if sums is None:
            raise RuntimeError("the gradient of a loss in chunks serves one backward, and has served it")
        if above.is_cuda or above != 1:
            for each in sums:
                each.mul_(above)
        return None, *sums


class _Work:
    """One call. `sums`: the gradients so far of the states, the head's weights and the others; None: none is wanted."""

    def __init__(
        self,
        head: nn.Module,
        value: Value,
        frozen: Sequence[tuple[Tensor, nn.Module]],
        weights: tuple[Tensor, ...],
        others: tuple[Tensor, ...],
        block: int | None,
        rows: int | None,
        vocabulary: int,
        device: str,
    ) -> None:
        self.head, self.value, self.weights, self.others = _Head(head), value, weights, others
        self.frozen = [(states_ND, _Head(module)) for states_ND, module in frozen]
        places = BLOCK.get(device, BLOCK["cuda"])
        # The gradient of the others is added up chunk by chunk, so a chunk is not much smaller than they are.
        as_many = min(places, sum(each.numel() for each in others) // (4 * vocabulary))
        self.rows = rows or max(FEW, CHUNK.get(device, CHUNK["cuda"]) // (4 * vocabulary), as_many)
        # Every frozen network takes another buffer of the block's size.
        self.block = block or max(self.rows, places if not frozen else places * 5 // 4 // (1 + len(frozen)))

    def run(self, states_ND: Tensor, sums: list[Any] | None) -> Tensor:
        total = torch.zeros((), dtype=_wide(states_ND.dtype), device=states_ND.device)
        for at in _slices(0, len(states_ND), self.block):
            states_BD = states_ND[at].detach()
            if sums is None or self.head.plain(states_BD):
                logits_BV = self.head.logits(states_BD, self.block)
                total += self._chunks(logits_BV, at, sums)
                if sums is not None:
                    self._products(logits_BV, states_BD, at, sums)
                continue
            with torch.enable_grad():
                made_BV = self.head.module(states_BD.requires_grad_())
            d_BV = made_BV.detach().to(_wide(made_BV.dtype), copy=True)
            total += self._chunks(d_BV, at, sums)
            d_states, *more = torch.autograd.grad(made_BV, [states_BD, *self.weights], d_BV.to(made_BV.dtype))
            sums[0][at] = d_states
            _add(sums, 1, more)
        return total

    def _chunks(self, logits_BV: Tensor, block: slice, sums: list[Any] | None) -> Tensor:
        """The sum over a block, whose logits become their gradient."""
        with torch.no_grad():
            frozen_BV = [head.logits(states_ND[block], self.block) for states_ND, head in self.frozen]
        total = logits_BV.new_zeros(())
        for inside in _slices(0, len(logits_BV), self.rows):
            at = slice(block.start + inside.start, block.start + inside.stop)
            logits_CV, frozen_CV = logits_BV[inside], [f[inside] for f in frozen_BV]
            if sums is None:
                total += self.value(logits_CV, at, *frozen_CV)
                continue
            with torch.enable_grad():
                leaf_CV = logits_CV.detach().requires_grad_()
                part = self.value(leaf_CV, at, *frozen_CV)
            inputs = [leaf_CV, *self.others]
            if at.start == 0:
                _refuse_unnamed(part, inputs)
            d_CV, *more = torch.autograd.grad(part, inputs, allow_unused=True)
            total += part.detach()
            if d_CV is None:
                logits_CV.zero_()
            else:
                logits_CV.copy_(d_CV)
            _add(sums, 1 + len(self.weights), more)
        return total

    def _products(self, d_BV: Tensor, states_BD: Tensor, at: slice, sums: list[Any]) -> None:
        """The gradient of a block's logits, to that of its states and of a linear head, without a copy of either."""
        weight = self.head.module.weight
        torch.mm(d_BV, weight.detach(), out=sums[0][at])
        for i, p in enumerate(self.weights, start=1):
            if p is not weight:
                _add(sums, i, [d_BV.sum(0)])
            elif sums[i] is None:
                sums[i] = torch.mm(d_BV.t(), states_BD)
            else:
                sums[i].addmm_(d_BV.t(), states_BD)


class _Head:
    """A head, and where a linear one writes the logits of every block."""

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module
        self.buffer: Any = None

    def plain(self, states_BD: Tensor) -> bool:
        """Whether it is x W' + b in float32 or wider, and no more."""
        dtype = states_BD.dtype
        exact = type(self.module) is nn.Linear and self.module.weight.dtype == dtype == _wide(dtype)
        return exact and not torch.is_autocast_enabled(states_BD.device.type)

    def logits(self, states_BD: Tensor, block: int) -> Tensor:
        if not self.plain(states_BD):
            made = self.module(states_BD)
            return made.to(_wide(made.dtype))
        weight, bias = self.module.weight.detach(), self.module.bias
        if self.buffer is None:
            # Made once: memory that is given back and taken anew comes page by page, at the price of a product.
            self.buffer = states_BD.new_empty(min(block, len(states_BD)), len(weight))
        logits_BV = torch.mm(states_BD, weight.t(), out=self.buffer[: len(states_BD)])
        return logits_BV if bias is None else logits_BV.add_(bias.detach())


def _add(sums: list[Any], first: int, more: Sequence[Tensor | None]) -> None:
    for i, d in enumerate(more, start=first):
        if d is not None:
            # The first is copied: what autograd hands out may be seen elsewhere.
            sums[i] = d.clone() if sums[i] is None else sums[i].add_(d)


def _refuse_unnamed(part: Tensor, named: Sequence[Tensor]) -> None:
    """The gradient of a tensor that is not named would be lost without a word."""
    leaves, ends = {id(t) for t in named}, {t.grad_fn for t in named}
    nodes, seen = [part.grad_fn], set(ends)
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable") and id(node.variable) not in leaves:
            shape = list(node.variable.shape)
            raise ValueError(
                f"the value of a chunk reads a tensor with a gradient, {shape}, that `others` does not name"
            )
        nodes += [following for following, _ in node.next_functions]


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _slices(start: int, stop: int, step: int) -> Iterator[slice]:
    return (slice(i, min(i + step, stop)) for i in range(start, stop, step))
