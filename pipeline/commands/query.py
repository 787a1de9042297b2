"""Query: what one SELECT says about the tables."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pydantic import ValidationError

from pipeline.commands.screen import at_least_one, show, show_json, table
from pipeline.contracts import TABLES
from pipeline.core.settings import RunSettings
from pipeline.core.workspace import DATA, PARAMS, memo_folder
from pipeline.memo.memo import Memo
from pipeline.plan.faults import PlanError, explained
from pipeline.plan.reading import load
from pipeline.tables.rules import query
from pipeline.tables.sql import MACROS, PENDING, VIEWS

ABOUT = "what one SELECT says about the tables"
MORE = "Without a text, the views and their columns are listed. It can read the tables and nothing else."

SHOWN = 50


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `query`."""
    text = 'such as "select domain, avg(agreement.score) from scores_wide group by 1"'
    command.add_argument("sql", nargs="?", help=text)
    command.add_argument("--json", action="store_true", dest="as_json", help="print JSON, all rows without --rows")
    command.add_argument("--rows", type=at_least_one, metavar="N", help=f"show at most N rows ({SHOWN})")
    command.add_argument("--all", action="store_true", dest="every", help="show every row")


def run(sql: str | None, as_json: bool, rows: int | None, every: bool) -> None:
    """Print what one SELECT says about the tables; without one, the views it may read."""
    if sql is None:
        show(line for name, about in VIEWS.items() for line in _view(name, about))
        show(["pending: answers that a running or stopped stage has received; in no table yet"])
        show(f"  {column}" for column in [*PENDING.names, ""])
        show(["every view of a table has two more columns: instance, of (the folder it lies in)", "", "macros"])
        show(f"  {macro}" for macro in MACROS)
        return
    # The memo is read only where it is asked about: it may be large.
    answers = Memo(memo_folder()).table(PENDING, waiting(DATA)) if "pending" in sql.lower() else None
    most = rows if rows or every or as_json else SHOWN
    # One row more tells whether there are more.
    found = query(DATA, sql, answers, most=None if every or most is None else most + 1, limits=run_settings().query)
    cut = not every and most is not None and found.num_rows > most
    found = found.slice(0, most) if cut else found
    if as_json:
        show_json(found.to_pylist())
    else:
        show(table(found.column_names, zip(*(column.to_pylist() for column in found.columns), strict=True)))
        show([f"({found.num_rows} rows)"] if not cut else [])
    if cut:
        told = f"(the first {most:,} rows; --rows N shows more, --all every one)"
        print(told, file=sys.stderr if as_json else sys.stdout)


def waiting(data: Path) -> set[str]:
    """The instances of the plan that ask models and whose table is not there: what they received is in none."""
    plans = [json.loads(file.read_text("utf-8")) for file in (data / "plan").glob("*/*.json")]
    return {
        f"{plan['stage']}@{plan['instance']}"
        for plan in plans
        if plan["stage"] in ("generate", "evaluate", "compare") and not (data / plan["output"]).is_dir()
    }


def run_settings() -> RunSettings:
    """Those of `params.yaml` where there is one: a query must not wait until all its other faults are mended."""
    given = load(PARAMS).get("run") if PARAMS.exists() else None
    try:
        return RunSettings.model_validate(given or {})
    except ValidationError as error:
        raise PlanError(explained("run", error, RunSettings)) from error


def _view(name: str, about: str) -> list[str]:
    columns = TABLES[name].columns if name in TABLES else {}
    width = max(map(len, columns), default=0)
    return [f"{name}: {about}", *(f"  {column:<{width}}  {c.about}" for column, c in columns.items()), ""]
