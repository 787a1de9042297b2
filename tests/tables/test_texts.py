"""Texts in a mapped file are the texts that were put there."""

from __future__ import annotations

from tempfile import TemporaryFile

import pyarrow as pa
import pytest

from pipeline.errors import Refused
from pipeline.tables import texts
from pipeline.tables.texts import Column


@pytest.mark.parametrize(
    "pieces",
    [
        [], [[]], [["a", "é\u4e00"], [], [""], ["b"]], [["a", None], [None]], [[None]], [["", ""]], [[None, "x", None]],
    ],
    ids=str,
)  # fmt: skip
def test_all_that_was_added_is_there(pieces: list[list[str | None]]) -> None:
    with TemporaryFile() as file:
        column = Column(file)
        for piece in pieces:
            # A slice, so that what lies around it is seen not to count.
            column.add(pa.array(["before", *piece, "after"], pa.string()).slice(1, len(piece)))
        found = column.array()
    found.validate(full=True)
    expected = [text for piece in pieces for text in piece]
    assert found.to_pylist() == expected and found.null_count == expected.count(None)


def test_more_than_an_array_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MOST", 3)
    with TemporaryFile() as file:
        column = Column(file)
        column.add(pa.array(["ab", "cd"]))
        with pytest.raises(Refused, match="a column of 2 texts has 4 bytes"):
            column.array()
