"""What was met before is found again, wherever it lies by now."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.tables import seen


def test_the_first_beside_a_key_is_found_as_a_dictionary_finds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seen, "FEW", 10)
    here, known = seen.Seen(), dict[int, int]()
    draw = np.random.default_rng(1)
    wide = draw.integers(0, 2**64, 300, np.uint64).tolist()
    for beside, at in enumerate(draw.integers(0, 300, 1500).tolist()):
        key = [0, 2**64 - 1, *wide][at]
        assert here.first(key, beside) == known.get(key)
        known.setdefault(key, beside)
    assert len(known) > 290 and len(here._few) <= 11
