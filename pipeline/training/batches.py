"""How the rows of a step are laid out in micro-batches, so that few of the positions that are computed are padding."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.tables.lists import lengths, whole

# Padded positions of a micro-batch. More share a matrix product; fewer stay in a processor's cache.
POSITIONS = {"cpu": 1024, "cuda": 1 << 15}
# A row joins longer ones if its padding is no more than this many positions, or a quarter of the longest.
LITTLE = 32


def layout(rows: pa.Table, batch_rows: int, device: str) -> list[np.ndarray]:
    """The numbers of the rows of each micro-batch: rows of like lengths together, longest first, ties in their order.

    A micro-batch has at most `batch_rows` rows and, if it has more than one, POSITIONS positions, few of them padding.
    """
    sizes = lengths(whole(rows, "token_ids"))
    pieces: list[list[int]] = []
    for row in np.argsort(-sizes, kind="stable"):
        last = pieces[-1] if pieces else []
        # The first row of a micro-batch is its longest.
        longest = sizes[last[0]] if last else 0
        fits = len(last) < batch_rows and longest * (len(last) + 1) <= POSITIONS[device]
        if last and fits and longest - sizes[row] <= max(LITTLE, longest // 4):
            last.append(int(row))
        else:
            pieces.append([int(row)])
    return [np.array(piece) for piece in pieces]
