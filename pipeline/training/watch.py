"""A slice of the rows that is not trained on: how a student does on it, which step was the best, and when to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.errors import Refused
from pipeline.tables import ids
from pipeline.training.recipe import HeldOut

# What a look puts into the curve: the loss on the slice, and the share of its answers that are right.
LOSS, RIGHT = "held_out", "right"


class Watch:
    """The numbers of the rows that are `held` out, all those of a prompt together, and of those that are `trained`."""

    def __init__(self, given: HeldOut, prompt_ids: np.ndarray, seed: int) -> None:
        self.given = given
        out = ids.draws(seed, "held_out", prompt_ids) < given.share
        self.held, self.trained = np.flatnonzero(out), np.flatnonzero(~out)
        if not len(self.held) or not len(self.trained):
            raise Refused(
                f"held_out.share: of {len(prompt_ids)} rows {len(self.held)} are held out; there must be some, and "
                f"some left to train on: choose another share"
            )

    def due(self, done: int, of: int) -> bool:
        """Whether to look after so many steps."""
        return done % self.given.every == 0 or done == of

    def best(self, curve: Sequence[Mapping[str, float]]) -> int | None:
        """The place in the curve of the best look so far, the first of equals."""
        looks = [i for i, point in enumerate(curve) if LOSS in point]
        return min(looks, key=lambda i: curve[i][LOSS], default=None)

    def ended(self, curve: Sequence[Mapping[str, float]]) -> bool:
        """Whether the last `patience` looks brought nothing better."""
        best = self.best(curve)
        if self.given.patience is None or best is None:
            return False
        return sum(LOSS in point for point in curve[best + 1 :]) >= self.given.patience
