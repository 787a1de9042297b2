"""What was met before, in a few bytes each: a dictionary of as many numbers takes five times the room."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

# As many are in a dictionary, or a share of all if that is more; they are put among the others together.
FEW, SHARE = 1 << 16, 1 / 64


class Seen:
    """Numbers of 64 bits, each with one that was kept beside it: 16 bytes, and half as many again while they grow."""

    def __init__(self) -> None:
        self._few: dict[int, int] = {}
        self._keys = self._kept = np.zeros(0, np.uint64)

    def first(self, key: int, beside: int) -> int | None:
        """What was kept beside a key that was met before; of a new one, `beside` is."""
        if (known := self._few.get(key)) is not None:
            return known
        # A view gives Python's own numbers, and the array one of numpy's for each.
        keys = self._keys.data
        at = bisect_left(keys, key)
        if at < len(keys) and keys[at] == key:
            return int(self._kept[at])
        self._few[key] = beside
        if len(self._few) > max(FEW, SHARE * len(keys)):
            self._sort()
        return None

    def _sort(self) -> None:
        keys, kept = (np.fromiter(some, np.uint64, len(self._few)) for some in (self._few, self._few.values()))
        self._few, order = {}, np.argsort(keys)
        at = np.searchsorted(self._keys, keys[order])
        self._kept = np.insert(self._kept, at, kept[order])
        self._keys = np.insert(self._keys, at, keys[order])
