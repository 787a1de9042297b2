"""Every exporter of rows keeps the laws of `laws/exporter.py`, and each of these can be broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.methods import find
from pipeline.kinds.exporter import LINES, Shape
from pipeline.laws import exporter as laws
from pipeline.laws.exporter import Case, Law
from tests.laws.ours import held, named

SOUND = next(laws.cases(find("exporter", "trl.sft")))


@pytest.mark.parametrize(("law", "case"), held("exporter"), ids=named)
def test_law(law: Law, case: Case) -> None:
    law(case)


def written(rows: list[dict[str, Any]], out: Path, said: int | None = None) -> Shape:
    (out / LINES).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return Shape(len(rows) if said is None else said, LINES, "", {})


def columns(answer: Any) -> dict[str, Any]:
    return {"messages": [*answer.messages, answer.turn("drop")]}


def one_more(sets: Any, out: Path) -> Shape:
    rows = [columns(some[0]) for some in sets]
    return written(rows, out, len(rows) + 1)


def stripped(sets: Any, out: Path) -> Shape:
    rows = [{"prompt": some[0].messages[-1]["content"].strip(), "answer": some[0].content.strip()} for some in sets]
    return written(rows, out)


def everything(sets: Any, out: Path) -> Shape:
    return written([columns(answer) for some in sets for answer in some], out)


def with_its_place(sets: Any, out: Path) -> Shape:
    return written([{**columns(some[0]), "of": str(out)} for some in sets], out)


BROKEN: dict[str, tuple[Law, Callable[[Any, Path], Shape]]] = {
    "one more": (laws.rows_are_counted, one_more),
    "stripped": (laws.no_text_is_changed, stripped),
    "everything": (laws.what_was_dropped_is_not_learnt, everything),
    "its place": (laws.the_same_of_the_same, with_its_place),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_exporter_breaks_a_law(fault: str) -> None:
    law, exporter = BROKEN[fault]
    with pytest.raises(AssertionError):
        law(replace(SOUND, exporter=exporter))
