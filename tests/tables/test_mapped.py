"""Columns as arrays that lie in no memory and in no folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.tables import mapped


@pytest.mark.parametrize(
    ("chunks", "kind", "null", "found"),
    [
        ([[1, None], [3], []], pa.int64(), None, [1.0, np.nan]), ([[1, None], [3]], pa.int64(), 0, [1, 0]),
        ([[0.5, 2.0, 3.0]], pa.float64(), None, [0.5, 2.0]), ([[True], [False, True]], pa.bool_(), None, [True, False]),
    ],
)  # fmt: skip
def test_the_rows_of_a_mask_are_numbers(
    chunks: list, kind: pa.DataType, null: int | None, found: list, tmp_path: Path
) -> None:
    numbers = mapped.numbers(pa.chunked_array(chunks, kind), np.array([True, True, False]), tmp_path, null)
    np.testing.assert_array_equal(numbers, found)
    assert numbers.dtype == np.array(found).dtype and list(tmp_path.iterdir()) == []


def test_nothing_is_an_array_too(tmp_path: Path) -> None:
    assert mapped.array((0, 3), np.int32, tmp_path).shape == (0, 3)
    assert isinstance(mapped.array((2,), "S3", tmp_path / "new").base, np.memmap)
