"""How little of an answer is new."""

from __future__ import annotations

import zlib

from tests.scorers.scored import score

TEXTS = ["ab" * 40, "the quick brown fox jumps over a lazy dog, and then 1234567890 more", "", None]


def test_what_repeats_itself_is_small_and_a_failure_has_no_score() -> None:
    found, quantities = score("compression.zlib", {"content": TEXTS, "error": [None, None, None, "no"]})
    sizes = [len(zlib.compress((text or "").encode())) for text in TEXTS]
    assert found == [*map(float, sizes[:3]), None] and sizes[0] < sizes[1]
    assert quantities[0] == {"compressed": float(sizes[0]), "bytes": 80.0}
