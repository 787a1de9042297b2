"""One page of a view: which of its columns a person sees, its rows by a filter in SQL, in an order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.contracts import TABLES
from pipeline.display import nearest
from pipeline.errors import Refused
from pipeline.tables.rules import closes
from pipeline.tables.sql import VIEWS, quoted
from pipeline.viewing.tables import Tables

ROWS = 50
# What is shown of a long text, in characters.
LONGEST = 160
# Columns that are the same for many rows, or say little to a person: a row's own page has them.
LEFT_OUT = {
    "request_id", "model_id", "seed", "fingerprint", "asked", "attempts", "cost_usd", "prompt_tokens", "verifier",
    "template_hash", "tokenizer_hash", "teacher_id", "group", "solution", "measure", "elicitation", "operator", "error",
}  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """A page that is asked for; pages are numbered from 0."""

    view: str = "responses"
    where: str = ""
    order: str = ""
    down: bool = False
    page: int = 0


@dataclass(frozen=True)
class Page:
    """Its columns, its rows, and how many rows there are on all pages."""

    names: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    total: int

    @property
    def pages(self) -> int:
        return max(1, -(-self.total // ROWS))


def page(tables: Tables, wanted: Wanted) -> Page:
    """The rows of a page; refuses a filter that is none, and a column that is not there."""
    names = columns(tables, wanted.view)
    if wanted.order and wanted.order not in names:
        raise Refused(f"{wanted.view} has no column {wanted.order!r} to be sorted by{nearest(wanted.order, names)}")
    shown = wanted.where.strip() or "true"
    if closes(shown):
        raise Refused(f"{shown!r}: it closes a bracket that it did not open.")
    kept = f"FROM {wanted.view} WHERE (\n{shown}\n)"
    total = tables.count(f"SELECT count(*) {kept}", shown)
    selected = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in names.items())
    order = ""
    if wanted.order:
        way = "DESC" if wanted.down else "ASC"
        # Rows that are alike have an order too, or a page might show what another one did.
        table = TABLES.get(wanted.view)
        keys = [quoted(key) for key in table.key] if table else ["response_id"] if "response_id" in names else []
        order = f"ORDER BY {', '.join([f'{names[wanted.order]} {way} NULLS LAST', *keys])}"
    text = f"SELECT {selected} FROM (SELECT * {kept} {order} LIMIT {ROWS} OFFSET {wanted.page * ROWS})"
    return Page(list(names), tables.ask(text, shown).to_pylist(), total)


def columns(tables: Tables, view: str) -> dict[str, str]:
    """The columns of a view that a person sees -> what is shown of each, in SQL."""
    if view not in VIEWS:
        raise Refused(f"there is no view {view!r}{nearest(view, VIEWS)}; there are {', '.join(VIEWS)}")
    found = {}
    for field in tables.ask(f"SELECT * FROM {view} LIMIT 0").schema:
        shown = _shown(field)
        if shown is not None and field.name not in LEFT_OUT:
            found[field.name] = shown
    return found


def _shown(field: pa.Field) -> str | None:
    """What is shown of a column; nothing of arrays and of long lists of numbers."""
    name, kind = quoted(field.name), field.type
    if pa.types.is_struct(kind):
        return f"{name}.score" if kind.get_field_index("score") >= 0 else None
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        # A conversation; nothing of arrays.
        talks = kind.value_type.get_field_index("role") >= 0
        return f"left({name}[-1].content, {LONGEST})" if talks else None
    if pa.types.is_list(kind) and not pa.types.is_string(kind.value_type):
        return None
    if pa.types.is_string(kind) or pa.types.is_list(kind) or pa.types.is_map(kind):
        return f"left({name}::VARCHAR, {LONGEST})"
    return None if pa.types.is_binary(kind) else name
