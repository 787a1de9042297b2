"""Sequences: the class is what was planted, at whole steps, and letters are changed as often as is said."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.methods import find
from pipeline.errors import Refused


def rows(**arguments: Any) -> list[dict[str, Any]]:
    source = find("source", "sequences.dna").factory
    return [dict(row.columns) for row in source(**{"rows": 60, "seed": 3, **arguments})]


def pieces(row: dict[str, Any], length: int = 9, step: int = 3) -> set[str]:
    text = row["messages"][0]["content"]
    return {text[i : i + length] for i in range(0, len(text) - length + 1, step)}


def test_every_class_has_a_motif_of_its_own() -> None:
    whole = rows(mutated=0.0)
    for name in {row["reference"] for row in whole}:
        shared = set.intersection(*(pieces(row) for row in whole if row["reference"] == name))
        assert len(shared) == 1
        assert not any(shared & pieces(row) for row in whole if row["reference"] != name)
    assert {len(row["messages"][0]["content"]) for row in whole} == {36}
    assert {row["reference"] for row in rows(seed=4)} == {f"motif {i}" for i in range(4)}


def test_some_letters_are_changed_and_some_solutions_wrong() -> None:
    plain, changed = rows(mutated=0.0), rows(mutated=0.3, slip=0.5)
    assert [row["reference"] for row in plain] == [row["reference"] for row in changed]
    assert sum(row["solution"] != row["reference"] for row in changed) in range(18, 42)
    assert all(row["solution"] == row["reference"] for row in plain)
    assert len(set().union(*map(pieces, changed))) > len(set().union(*map(pieces, plain)))


def test_motifs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(Refused, match="2 copies of 9 letters do not fit 20"):
        rows(length=20)
