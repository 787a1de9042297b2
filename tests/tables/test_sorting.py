"""Rows in order are the same rows, whether they fit one run or lie in many."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.tables import sorting
from pipeline.tables.sorting import cut, in_order

SCHEMA = pa.schema([("name", pa.string()), ("n", pa.int64()), ("of", pa.list_(pa.float32()))])


def rows(count: int, kinds: int) -> list[dict[str, Any]]:
    """Names of so many kinds in no order; `n` says how they came."""
    names = [f"{random.Random(i).randrange(kinds):04d}é" for i in range(count)]
    return [{"name": name, "n": n, "of": [n / 2] * (n % 3) if n % 5 else None} for n, name in enumerate(names)]


def cut_up(given: list[dict[str, Any]], size: int) -> list[pa.RecordBatch]:
    return [pa.RecordBatch.from_pylist(given[i : i + size], SCHEMA) for i in range(0, len(given), size)]


def small(monkeypatch: pytest.MonkeyPatch, run: int, looked_at: int) -> None:
    monkeypatch.setattr(sorting, "RUN_ROWS", run)
    monkeypatch.setattr(sorting, "LOOKED_AT", looked_at)


@pytest.mark.parametrize("count", [0, 1, 40, 41, 300])
@pytest.mark.parametrize("kinds", [1, 12, 10_000])
@pytest.mark.parametrize(("run", "looked_at", "size"), [(40, 1, 7), (40, 8, 300), (7, 3, 1), (1, 1, 50), (1000, 8, 7)])
def test_rows_come_in_order_and_equal_ones_as_they_came(
    count: int, kinds: int, run: int, looked_at: int, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch, run, looked_at)
    given = rows(count, kinds)
    found = [row for table in in_order(cut_up(given, size), ["name"], tmp_path) for row in table.to_pylist()]
    assert found == sorted(given, key=lambda row: row["name"])
    assert list(tmp_path.iterdir()) == []


def test_the_first_column_counts_before_the_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, 16, 4)
    given = [{**row, "n": row["n"] * 7 % 50} for row in rows(100, 5)]
    found = [row for table in in_order(cut_up(given, 9), ["name", "n"], tmp_path) for row in table.to_pylist()]
    assert found == sorted(given, key=lambda row: (row["name"], row["n"]))


@pytest.mark.parametrize("descending", [False, True])
def test_runs_that_lie_one_after_another_are_given_one_by_one(
    descending: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that came in order, or in the opposite one."""
    small(monkeypatch, 50, 5)
    given = [{"name": f"{i:04d}", "n": i, "of": []} for i in range(500)]
    pieces = list(in_order(cut_up(given[::-1] if descending else given, 50), ["name"], tmp_path))
    assert [row for table in pieces for row in table.to_pylist()] == given
    assert {len(table) for table in pieces if len(table)} == {50}


@pytest.mark.parametrize("kinds", [10_000, 1])
def test_no_more_than_about_a_run_is_held(kinds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of all runs lie between any two keys, or equal ones in one run after another."""
    small(monkeypatch, 100, 16)
    pieces = list(in_order(cut_up(rows(3000, kinds), 100), ["name"], tmp_path))
    assert len(pieces) > 20 and max(len(table) for table in pieces) < 300


def test_a_run_is_bounded_in_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "RUN_BYTES", 1000)
    given = rows(300, 10_000)
    pieces = list(in_order(cut_up(given, 10), ["name"], tmp_path))
    assert len(pieces) > 8 and max(table.nbytes for table in pieces) < 3000
    assert [row for table in pieces for row in table.to_pylist()] == sorted(given, key=lambda row: row["name"])


def test_what_is_not_read_to_its_end_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, 10, 2)
    pieces = in_order(cut_up(rows(100, 1000), 10), ["name"], tmp_path)
    next(pieces)
    assert len(list(tmp_path.iterdir())) == 1
    pieces.close()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "size", "within", "cuts"),
    [
        ("aabbccc", 3, None, ["aab", "bcc", "c"]), ("aab", 3, None, ["aab"]), ("", 3, None, []),
        ("aabbccc", 3, "name", ["aabb", "ccc"]), ("abcd", 1, "name", ["abc", "d"]), ("aaaaa", 2, "name", ["aaaaa"]),
        ("abbbbb", 2, "name", ["abbbbb"]), ("", 2, "name", []),
    ],
)  # fmt: skip
def test_tables_are_cut_by_size_or_between_values(
    names: str, size: int, within: str | None, cuts: list[str], tmp_path: Path
) -> None:
    given = [{"name": name, "n": n, "of": None} for n, name in enumerate(names)]
    for step in (2, 100):
        tables = [pa.Table.from_batches([batch]) for batch in cut_up(given, step)]
        found = ["".join(table["name"].to_pylist()) for table in cut(tables, size, within)]
        assert "".join(found) == names
        if within is None:
            assert found == cuts
        else:
            assert all(len(one) >= size for one in found[:-1])
            assert all(one[-1] != other[0] for one, other in pairwise(found))
            assert step == 2 or found == cuts
