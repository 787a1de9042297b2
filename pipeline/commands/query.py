"""Query: what one SELECT says about the tables."""

from __future__ import annotations

import argparse

from pipeline.commands.screen import show, show_json, table
from pipeline.contracts import TABLES
from pipeline.core.workspace import DATA, memo_folder
from pipeline.memo.memo import Memo
from pipeline.tables.rules import query
from pipeline.tables.sql import MACROS, PENDING, VIEWS

ABOUT = "what one SELECT says about the tables"
MORE = "Without a text, the views and their columns are listed. It can read the tables and nothing else."


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `query`."""
    text = 'such as "select domain, avg(agreement.score) from scores_wide group by 1"'
    command.add_argument("sql", nargs="?", help=text)
    command.add_argument("--json", action="store_true", dest="as_json", help="print JSON")


def run(sql: str | None, as_json: bool) -> None:
    """Print what one SELECT says about the tables; without one, the views it may read."""
    if sql is None:
        show(line for name, about in VIEWS.items() for line in _view(name, about))
        show(["pending: answers that a running stage has received; in no table yet"])
        show(f"  {column}" for column in [*PENDING.names, ""])
        show(["every view of a table has two more columns: instance, of (the folder it lies in)", "", "macros"])
        show(f"  {macro}" for macro in MACROS)
        return
    # The memo is read only where it is asked about: it may be large.
    answers = Memo(memo_folder()).table(PENDING) if "pending" in sql.lower() else None
    found = query(DATA, sql, answers)
    if as_json:
        show_json(found.to_pylist())
        return
    show(table(found.column_names, zip(*(column.to_pylist() for column in found.columns), strict=True)))
    show([f"({found.num_rows} rows)"])


def _view(name: str, about: str) -> list[str]:
    columns = TABLES[name].columns if name in TABLES else {}
    width = max(map(len, columns), default=0)
    return [f"{name}: {about}", *(f"  {column:<{width}}  {c.about}" for column, c in columns.items()), ""]
