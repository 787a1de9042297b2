"""How the rows of one optimizer step are laid out for the forward pass: micro-batches of rows of like length.

A row in a batch of longer ones is computed at their width. Cut by length into a few micro-batches, a step's rows come
to little more than their own tokens, and what a forward pass keeps for the backward pass is bounded by the largest
micro-batch, not by the step. The layout is made from lengths alone, so it is the same on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Positions of a micro-batch, padding included. Set by memory; the speed is flat from 600 to 2,000 on a CPU.
POSITIONS = {"cpu": 1024, "cuda": 16384}
# What a micro-batch costs besides its positions, in positions: calls, and a gradient of the embedding and the head.
APART = 128
# Widths are multiples of this, so that few shapes occur.
BUCKET = 16


def micro_batches(
    lengths: Sequence[int] | np.ndarray, positions: int, together: Sequence[object] | None = None
) -> list[list[int]]:
    """The rows of a step as micro-batches: numbers of rows, each list in ascending order, the widest batch first.

    `positions` bounds rows x width of a micro-batch, unless one row or set alone is larger. Rows with the same number
    in `together` are a set (the answers that a preference compares), and stay in one. Of all ways to cut the rows in
    the order of their lengths (ties as they come) it is the cheapest, where one costs its positions and
    APART more.
    """
    widths = [-(-int(n) // BUCKET) * BUCKET for n in lengths]
    if len(set(widths)) == 1 and sum(widths) <= positions:
        return [list(range(len(widths)))]
    sets: dict[object, list[int]] = {}
    for row in range(len(lengths)):
        sets.setdefault(row if together is None else together[row], []).append(row)
    units = sorted(sets.values(), key=lambda rows: -max(widths[row] for row in rows))
    width = [max(widths[row] for row in rows) for rows in units]
    # best[j]: the least cost of the first j units, and where the last micro-batch of these begins.
    best = [(0, 0)]
    for j in range(1, len(units) + 1):
        found, rows = None, 0
        for i in range(j - 1, -1, -1):
            rows += len(units[i])
            if i < j - 1 and rows * width[i] > positions:
                break
            cost = best[i][0] + rows * width[i] + APART
            if found is None or cost < found[0]:
                found = (cost, i)
        assert found is not None
        best.append(found)
    cuts, j = [], len(units)
    while j:
        i = best[j][1]
        cuts.append(sorted(row for rows in units[i:j] for row in rows))
        j = i
    return cuts[::-1]
