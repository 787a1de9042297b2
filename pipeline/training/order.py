"""Which rows a step is made of. Drawn by name, so it is the same on any machine, and known without walking there."""

from __future__ import annotations

import functools
import math

import numpy as np

from pipeline.errors import Refused
from pipeline.tables import ids
from pipeline.training.recipe import Recipe


class Order:
    """An order of units per epoch. A unit is a row, or with `sets` all rows of one prompt, which no step cuts.

    A step has `batch_rows * accumulate` rows, or as many sets as fit into so many rows if all were as large as the
    largest. The last step of an epoch has what is left. With `pacing` a step has as many units, drawn from those of the
    lowest ranks; a set has the least of its rows'.
    """

    def __init__(self, prompt_ids: np.ndarray, recipe: Recipe, sets: bool, ranks: np.ndarray | None = None) -> None:
        rows = np.arange(len(prompt_ids))
        if sets:
            _, of = np.unique(prompt_ids, return_inverse=True)
            by_set = np.argsort(of, kind="stable")
            self.units = np.split(by_set, np.flatnonzero(np.diff(of[by_set])) + 1)
        else:
            self.units = np.split(rows, len(rows))
        largest = max(len(unit) for unit in self.units)
        self.seed, self.pacing = recipe.seed, recipe.pacing
        self.units_a_step = max(1, recipe.batch_rows * recipe.accumulate // largest)
        self.steps_an_epoch = math.ceil(len(self.units) / self.units_a_step)
        self.steps = max(1, round(recipe.epochs * self.steps_an_epoch))
        if self.pacing is not None:
            if ranks is None or (ranks < 0).any():
                raise Refused("pacing: there are rows without a rank; let the selection they are of say `order:`")
            self.ranked = np.argsort([ranks[unit].min() for unit in self.units], kind="stable")

    def at(self, step: int, share: slice = slice(None)) -> np.ndarray:
        """The numbers of the rows of a step, or of a share of its units, those of one unit together."""
        epoch, number = divmod(step, self.steps_an_epoch)
        chosen = self._epoch(epoch)[number * self.units_a_step : (number + 1) * self.units_a_step]
        if self.pacing is not None:
            able = max(len(chosen), math.ceil(self.pacing.share(step / self.steps) * len(self.units)))
            draw = ids.generator(self.seed, "pacing", step)
            chosen = self.ranked[draw.choice(able, len(chosen), replace=False)]
        return np.concatenate([self.units[i] for i in chosen[share]] or [np.arange(0)])

    @functools.lru_cache(maxsize=1)  # noqa: B019
    def _epoch(self, epoch: int) -> np.ndarray:
        return ids.generator(self.seed, "order", epoch).permutation(len(self.units))
