"""Vectors are the same array whether they come from a table, from SQL, in memory or in a mapped file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.contracts import SCORES
from pipeline.errors import Refused
from pipeline.tables import parquet, vectors
from pipeline.tables.parquet import Scan

NAN = float("nan")
# Response -> its vector, and what is read of it.
GIVEN: dict[str, tuple[list[float | None] | None, list[float]]] = {
    "0a": ([1.0, 2.0], [1.0, 2.0]),
    "1b": (None, [NAN, NAN]),
    "2c": ([0.1, -3.0], [0.1, -3.0]),
    "3d": ([None, 5.0], [NAN, NAN]),
}


def tables(place: Path, given: dict[str, list[float | None] | None]) -> Scan:
    """A table of scores in three parts."""
    rows = [{"response_id": i, "prompt_id": f"{n:08x}", "quantities": [], "vector": v}
            for n, (i, v) in enumerate(given.items())]  # fmt: skip
    parquet.write(SCORES, place / "embed", 3, [SCORES.rows(rows)])
    return Scan(SCORES, (place / "embed",))


@pytest.mark.parametrize("mapped", [0, 10**9])
def test_vectors_lie_where_their_responses_stand(mapped: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "MAPPED", mapped)
    stored = tables(tmp_path, {name: vector for name, (vector, _) in GIVEN.items()})
    # One that is not wanted, and one that has no row of scores.
    wanted = np.array(["0a", "11", "2c", "3d"], object)
    found = vectors.scores(stored, wanted, tmp_path / "scratch")
    expected = np.array([GIVEN[name][1] if name in GIVEN else [NAN, NAN] for name in wanted], np.float32)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32 and isinstance(found.base, np.memmap) == (mapped == 0)
    assert not mapped or not (tmp_path / "scratch").exists()


def test_a_column_is_read_as_a_table_is() -> None:
    given = [vector for vector, _ in GIVEN.values()]
    cut = pa.chunked_array([pa.array(part, pa.list_(pa.float32())) for part in (given[:3], [], given[3:])])
    found = vectors.column(cut, "embed.vector", Path("nowhere"))
    np.testing.assert_array_equal(found, np.array([expected for _, expected in GIVEN.values()], np.float32))


@pytest.mark.parametrize("given", [[], [None, None], [[], None]])
def test_without_a_vector_all_rows_lack_one(given: list[list[float] | None]) -> None:
    found = vectors.column(pa.chunked_array([pa.array(given, pa.list_(pa.float32()))]), "x", Path("nowhere"))
    assert len(found) == len(given) and bool(np.isnan(found).all())


def test_vectors_of_different_lengths_are_refused(tmp_path: Path) -> None:
    mixed = tables(tmp_path, {"0a": [1.0], "1b": [1.0, 2.0]})
    with pytest.raises(Refused, match="vector of embed gives vectors of different lengths: 1, 2"):
        vectors.scores(mixed, np.array(["0a", "1b"], object), tmp_path)


@pytest.mark.parametrize(
    ("rule", "read"), [("embed.vector", True), (" embed.vector ", True), ("other.vector", False), ("embed.v", False)]
)
def test_only_a_rule_that_is_a_column_is_read_without_sql(rule: str, read: bool, tmp_path: Path) -> None:
    assert (vectors.stored(tables(tmp_path, {"0a": [1.0]}), rule) is not None) == read
