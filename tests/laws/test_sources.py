"""Laws of sources: the same rows every time, each with its place, and no verifier but those that are declared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.methods import Method
from pipeline.errors import Refused
from pipeline.kinds.source import BadRow, GivenRow, Rows
from pipeline.kinds.verifier import OfArrays, verifier_named
from pipeline.laws.law import Broken, arguments, build, must
from pipeline.tables.tensors import cell
from tests.laws.ours import named, ours
from tests.tables.test_pictures import saved

ROWS = [{"prompt": f"{i}+1?", "reference": str(i + 1)} for i in range(6)]


def lines(path: Path) -> None:
    path.write_text("\n".join(map(json.dumps, ROWS)), "utf-8")


def array(path: Path) -> None:
    path.write_text(json.dumps(ROWS), "utf-8")


def separated(path: Path) -> None:
    path.write_text("prompt,reference\n" + "".join(f"{row['prompt']},{row['reference']}\n" for row in ROWS), "utf-8")


def table(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)


def folder(path: Path) -> None:
    path.mkdir()
    lines(path / "rows.jsonl")


def stacked(path: Path) -> None:
    with path.open("wb") as out:
        np.savez(out, x=np.arange(12, dtype=np.float32).reshape(6, 2), y=np.arange(6))


def graph(path: Path) -> None:
    with path.open("wb") as out:
        np.savez(out, x=np.eye(4, dtype=np.float32), edge_index=np.array([[0, 1], [1, 2]]), y=np.array([0, 1, 1, 0]))


def points(path: Path) -> None:
    with path.open("wb") as out:
        np.savez(out, points=np.arange(24, dtype=np.float32).reshape(2, 4, 3), y=np.array(["ball", "cube"]))


def pictures(path: Path) -> None:
    for i in range(len(ROWS)):
        file = path / f"kind {i % 2}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(saved(np.full((4, 4, 3), 9 * i, np.uint8)))


# What a source that reads a user's files is given to read; all others are given numbers.
FILES: dict[str, Callable[[Path], None]] = {
    "files.jsonl": lines,
    "files.json_array": array,
    "files.csv": separated,
    "files.parquet": table,
    "files.arrays": stacked,
    "files.graph": graph,
    "files.pictures": pictures,
    "files.points": points,
    "hub.datasets": folder,
}


@dataclass(frozen=True)
class Case:
    """A source with arguments: `rows` gives its rows anew."""

    method: Method
    rows: Callable[[], Rows]

    def __str__(self) -> str:
        return self.method.name


@pytest.fixture
def given(tmp_path: Path) -> Callable[[Method], Case]:
    def case(method: Method) -> Case:
        if method.name in FILES:
            FILES[method.name](tmp_path / "given")
            chosen: dict[str, Any] = {"path": str(tmp_path / "given")}
        else:
            chosen = next(arguments(method, {})) | ({"rows": 80} if "rows" in method.arguments.model_fields else {})
        return Case(method, lambda: build(method, chosen))

    return case


def told(row: GivenRow | BadRow) -> object:
    """A row with cells in place of its arrays, which cannot be compared as they are."""
    if isinstance(row, BadRow):
        return row
    return row.source, {name: _as_cell(value) for name, value in row.columns.items()}


def _as_cell(value: object) -> object:
    if isinstance(value, np.ndarray):
        return cell({"it": value})
    return {name: _as_cell(v) for name, v in value.items()} if isinstance(value, dict) else value


def rows_are_the_same_every_time(case: Case) -> None:
    first, second = (list(map(told, case.rows())) for _ in range(2))
    must(bool(first) and first == second, f"{len(first)} rows, then others")


def every_row_says_where_it_stands(case: Case) -> None:
    for row in case.rows():
        must(isinstance(row, GivenRow | BadRow) and row.source.strip() != "", repr(row)[:100])


def rows_name_declared_verifiers_and_these_can_read_the_reference(case: Case) -> None:
    declared = case.method.traits.get("verifiers")
    for row in case.rows():
        name = row.columns.get("verifier") if isinstance(row, GivenRow) else None
        if name is not None:
            must(declared is None or name in declared, f"{name} is not declared")
            judge = verifier_named(str(name))
            if isinstance(judge, OfArrays):
                truth: Any = row.columns["truth"]
                must(judge.judge(truth, truth).metric == 0, f"{name} does not call the truth right")
                continue
            reference = str(row.columns["reference"])
            right = judge.equal(reference, reference) or judge.equal(judge.parse(reference) or "", reference)
            must(right, f"{name} cannot read {reference!r}")


LAWS = (
    rows_are_the_same_every_time,
    every_row_says_where_it_stands,
    rows_name_declared_verifiers_and_these_can_read_the_reference,
)


@pytest.mark.parametrize("method", ours("source"), ids=lambda method: method.name)
@pytest.mark.parametrize("law", LAWS, ids=named)
def test_law(law: Callable[[Case], None], method: Method, given: Callable[[Method], Case]) -> None:
    law(given(method))


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    method = next(method for method in ours("source") if method.name == name)
    assert method.traits["files"]({"path": "nowhere", "revision": None}) == ["nowhere"]
    with pytest.raises(Refused, match="nowhere"):
        list(build(method, {"path": str(tmp_path / "nowhere")}))


def test_what_reads_files_says_which() -> None:
    assert {method.name for method in ours("source") if "files" in method.traits} == set(FILES)


def counting(calls: list[int]) -> Iterator[GivenRow]:
    calls.append(1)
    yield GivenRow("here", {"prompt": str(len(calls))})


def row(**columns: object) -> Callable[[], Rows]:
    return lambda: iter([GivenRow("here", columns)])


BROKEN: dict[str, tuple[Callable[[Case], None], Callable[[], Rows]]] = {
    "other rows": (rows_are_the_same_every_time, lambda calls=[]: counting(calls)),  # type: ignore[misc]
    "no rows": (rows_are_the_same_every_time, lambda: iter([])),
    "nowhere": (every_row_says_where_it_stands, lambda: iter([GivenRow(" ", {})])),
    "no row": (every_row_says_where_it_stands, lambda: iter([{"prompt": "x"}])),  # type: ignore[list-item]
    "undeclared": (LAWS[2], row(verifier="text.line", reference="a")),
    "unreadable": (LAWS[2], row(verifier="text.marked", reference="")),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_source_breaks_a_law(fault: str) -> None:
    law, rows = BROKEN[fault]
    method = next(method for method in ours("source") if method.name == "procedural.tasks")
    with pytest.raises(Broken):
        law(Case(replace(method, traits={"verifiers": ("text.marked",)}), rows))
