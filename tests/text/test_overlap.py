"""What two texts have in common, against sets."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.text import overlap


@pytest.mark.parametrize("bits", [1, 12])
def test_overlaps_are_those_of_sets(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "PAIR_BITS", bits)
    monkeypatch.setattr(overlap, "PAIR", np.uint64(((1 << bits) - 1) << 1))
    random = np.random.default_rng(0)
    texts = ["", "a", "a a a a a", *(" ".join(random.choice(list("abc"), size)) for size in random.integers(1, 30, 20))]
    sets = [{tuple(t.split()[i : i + 2]) for i in range(len(t.split()) - 1)} for t in texts]
    pairs = np.array([(i, j) for i in range(len(texts)) for j in range(len(texts))])
    found = overlap.overlaps(pa.array(texts), pa.array(texts[::-1]), pairs, 2)
    others = sets[::-1]
    assert found.tolist() == [[len(sets[i]), len(others[j]), len(sets[i] & others[j])] for i, j in pairs.tolist()]


def test_no_pairs_have_nothing_in_common() -> None:
    assert overlap.overlaps(pa.array(["a"]), pa.array(["a"]), np.zeros((0, 2), np.int64), 1).shape == (0, 3)
