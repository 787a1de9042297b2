"""Candidates made of columns, for tests of selectors."""

from __future__ import annotations

import numpy as np

from pipeline.kinds.selector import Candidates


def rows(count: int, **columns: np.ndarray) -> Candidates:
    """Candidates of a token and a prompt each, with these columns; `none` is 0. What a row is may be given, too."""
    names = np.array([f"{i:06d}" for i in range(count)], object)
    own = {"prompts": names, "domains": np.full(count, "d", object), "tokens": np.ones(count, int)}
    own = {name: columns.pop(name, column) for name, column in own.items()}
    return Candidates(names, **own, columns={"none": np.zeros(count), **columns})
