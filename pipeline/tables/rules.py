"""SQL that a user wrote: checked as a syntax tree, one SELECT of the views only, before it runs.

It is checked and run in a child process whose time and memory are bounded (`run: {query_s, query_memory}`).
"""

from __future__ import annotations

import functools
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from pipeline.bounded import Ended, Limits, bounded
from pipeline.contracts import TABLES
from pipeline.errors import Refused
from pipeline.tables.parquet import Scan
from pipeline.tables.sorting import in_order
from pipeline.tables.sql import (
    LIMITS,
    VIEWS,
    connect,
    empty,
    leaves_of,
    narrow,
    opened,
    quoted,
    refusing,
    rollouts_of,
    run,
    said,
    shortened,
)

NUMBER = r"(BOOLEAN|U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(.*\))"
TYPES = {"condition": "BOOLEAN", "number": NUMBER, "vector": NUMBER + r"\[\d*\]", "text": "VARCHAR"}

READS = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
ROW_FUNCTIONS = {"unnest", "range", "generate_series", "json_each", "json_tree"}
# What a rule sees of the tables that its stage reads; a stage that reads more says so.
ANSWERS = frozenset({"responses", "scores", "scores_wide"})
UNSTEADY = {"age", "now", "today", "transaction_timestamp", "txid_current", "getvariable", "in_search_path"}


T = TypeVar("T")
# From a text, what a refusal quotes of it, and how many rows are wanted at most, to rows.
Reader = Callable[[tuple[str, str, int | None]], pa.Table]
# Rows that come from DuckDB together, the file that they are put in, and the folder for what does not fit its memory.
BATCH, ROWS, SPILL = 8192, "rows.arrow", "spill"


def query(
    data: Path, text: str, answers: pa.Table | None = None, *, most: int | None = None, limits: Limits = LIMITS
) -> pa.Table:
    """What one SELECT says about all tables under `data`; its first rows if `most` is set.

    `answers` are those that the memo holds (columns PENDING); those of them that are in no table yet are the view
    `pending`.
    """
    return within(limits, shortened(text), lambda: reader(data, answers, limits)((text, text, most)))


def reader(data: Path, answers: pa.Table | None = None, limits: Limits = LIMITS) -> Reader:
    """What answers one SELECT after another about all tables under `data`, as they are now."""
    scans = [
        Scan(table, (folder,))
        for table in TABLES.values()
        for folder in sorted({file.parent for file in (data / table.name).rglob("part-*.parquet")})
    ]
    connection = opened([*leaves_of(scans, data), *rollouts_of(data)], answers, limits.memory)

    def read(asked: tuple[str, str, int | None]) -> pa.Table:
        text, shown, most = asked
        _parsed(connection, text, shown, {*VIEWS, *(["pending"] if answers is not None else [])})
        return run(connection, text, shown, most)

    return read


def within(limits: Limits, shown: str, work: Callable[[], T]) -> T:
    """Run a user's SQL in a child; where a limit ends it, a refusal names what is `shown`, and the limit."""
    with limited(limits, shown):
        return bounded(work, limits)


@contextmanager
def limited(limits: Limits, shown: str) -> Iterator[None]:
    """A limit that ended a child as a refusal that names what is `shown`, and the limit."""
    gib = f"{(limits.memory or 0) / 1e9:g} GB (run.query_memory)"
    try:
        yield
    except Ended as error:
        why = f"{limits.seconds:g} s (run.query_s)" if error.late else f"{gib}: {error}"
        raise Refused(f"{shown}: it needs more than {why}. Ask for less, or raise the limit.") from error
    except (MemoryError, duckdb.OutOfMemoryException) as error:
        raise Refused(f"{shown}: it needs more than {gib}. Ask for less, or raise the limit.") from error


def type_of(connection: duckdb.DuckDBPyConnection, expression: str, views: Set[str] = ANSWERS) -> str:
    """DuckDB's name of the type of a rule's expression over `scores_wide`; refuses what is not a steady expression."""
    check_expression(connection, expression, views)
    found = run(connection, f"DESCRIBE SELECT response_id, ({expression}\n) FROM scores_wide", expression)
    if found.num_rows != 2:
        raise Refused(f"{expression!r} must be one value per answer; it is {found.num_rows - 1} columns.")
    return found["column_type"][1].as_py()


def faults(
    rules: Mapping[str, tuple[str, str]],
    scorers: Sequence[str],
    limits: Limits = LIMITS,
    views: Set[str] = ANSWERS,
) -> list[str]:
    """What is wrong with rules, key -> (text, which of TYPES it must be), that see these views, in sentences."""
    return list(_told(tuple(rules.items()), tuple(scorers), limits, frozenset(views)))


@functools.cache
def _told(
    rules: tuple[tuple[str, tuple[str, str]], ...], scorers: tuple[str, ...], limits: Limits, views: frozenset[str]
) -> list[str]:
    twice = sorted({name for name in scorers if scorers.count(name) > 1})
    if twice:
        return [f"two scores are called {twice[0]}; rules could not tell them apart. Rename one."]
    shown = "; ".join(f"{key}: {shortened(text)}" for key, (text, _) in rules)
    try:
        return within(limits, shown, lambda: _faults(empty(scorers), rules, views))
    except Refused as error:
        return [str(error)]


def _faults(
    connection: duckdb.DuckDBPyConnection, rules: Iterable[tuple[str, tuple[str, str]]], views: Set[str]
) -> list[str]:
    texts = []
    for key, (text, wanted) in rules:
        try:
            found = type_of(connection, text, views)
        except Refused as error:
            texts.append(f"{key}: {error}")
            continue
        if not re.fullmatch(TYPES[wanted], found):
            texts.append(f"{key}: {shortened(text)} must be a {wanted}; it is {found}.")
    return texts


def columns(
    scans: Iterable[Scan],
    data: Path,
    expressions: Mapping[str, str],
    shown: Mapping[str, str] | None = None,
    limits: Limits = LIMITS,
    scratch: Path | None = None,
    grouped: tuple[Sequence[str], Mapping[str, str]] | None = None,
) -> pa.Table:
    """Expressions over `scores_wide` of these tables as columns beside `response_id`, ordered by it.

    They lie in a mapped file without a name, made in `scratch`, and so are no memory of this process. `shown` is what a
    refusal quotes of an expression that a user wrote, with its key: `select.a.where: ...`. If `grouped`, a row is a
    group: the columns whose values are its own and order it, and aggregates, name -> text over these columns.
    """
    told = {name: (shown or {}).get(name, text) for name, text in expressions.items()}
    scans = list(scans)
    views = ANSWERS | {scan.table.name for scan in scans}
    # The = keeps these names from being taken for columns inside another expression.
    listed = ", ".join(f"({text}\n) AS {quoted('=' + name)}" for name, text in expressions.items())
    text, order, names = (
        f"SELECT response_id, {listed} FROM scores_wide",
        ["response_id"],
        ["response_id", *expressions],
    )
    if grouped is not None:
        by, figures = grouped
        plain = ", ".join(f"{quoted('=' + name)} AS {quoted(name)}" for name in expressions)
        counted = ", ".join([*map(quoted, by), *(f"{figure} AS {quoted(name)}" for name, figure in figures.items())])
        text = f"SELECT {counted} FROM (SELECT {plain} FROM ({text})) GROUP BY {', '.join(map(quoted, by))}"
        order, names = list(by), [*by, *figures]

    def work(place: Path) -> None:
        connection = connect(scans, data, limits.memory, place / SPILL, limits.held)
        nodes = [node for text in expressions.values() for node in check_expression(connection, text, views)]
        narrow(connection, scans, data, nodes)
        try:
            with refusing(connection, "; ".join(told.values())):
                found = connection.sql(text).to_arrow_reader(BATCH)
                with pa.ipc.new_file(str(place / ROWS), found.schema) as writer:
                    for rows in in_order(found, order, place):
                        writer.write_table(rows, BATCH)
        except Refused:
            # Which of them fails is found by asking each alone, where all scorers are.
            connection = connect(scans, data, limits.memory, place / SPILL, limits.held)
            for name, expression in expressions.items():
                run(connection, f"SELECT ({expression}\n) FROM scores_wide", told[name])
            raise

    asked = "; ".join(told[name] for name in shown or told)
    with tempfile.TemporaryDirectory(dir=scratch or data) as folder:
        place = Path(folder)
        within(limits, shortened(asked), lambda: work(place))
        found = pa.ipc.open_file(pa.memory_map(str(place / ROWS))).read_all()
    return found.rename_columns(names)


def _parsed(connection: duckdb.DuckDBPyConnection, text: str, shown: str, views: Set[str]) -> dict[str, Any]:
    """The syntax tree of a text that is one SELECT of these views, or a refusal that says what it is."""
    shown = shortened(shown)
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise Refused(f"{shown}: {said(error)}") from error
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        what = " and ".join(kinds).lower().replace("multi", "pivot") or "nothing"
        raise Refused(f"{shown}: it must be one SELECT; it is {what}.")
    [[tree]] = connection.sql("SELECT json_serialize_sql(?::VARCHAR)", params=[text]).fetchall()
    answer = json.loads(tree)
    if answer["error"]:
        raise Refused(f"{shown}: {answer['error_message']}")
    [statement] = answer["statements"]
    nodes = list(_walk(statement))
    known = {*views, *(c["key"].lower() for node in nodes if "cte_map" in node for c in node["cte_map"]["map"])}
    for node in nodes:
        kind = str(node.get("type", ""))
        if kind.endswith("_NODE") and kind not in READS:
            raise Refused(f"{shown}: it must only read; it holds {kind.split('_')[0].lower()}.")
        if kind == "BASE_TABLE" and (node["schema_name"] or node["table_name"].lower() not in known):
            name = node["table_name"]
            raise Refused(f"{shown}: there is no view {name!r} here; there are {', '.join(sorted(views))}.")
        if kind == "TABLE_FUNCTION" and node["function"]["function_name"].lower() not in ROW_FUNCTIONS:
            name = node["function"]["function_name"]
            raise Refused(f"{shown}: {name}(...) is not allowed after FROM; the views are {', '.join(sorted(views))}.")
    return statement


def check_expression(
    connection: duckdb.DuckDBPyConnection, expression: str, views: Set[str] = ANSWERS
) -> list[dict[str, Any]]:
    """Refuse what is not exactly one expression, or could differ from run to run, or change the number of rows, or asks
    a table that its stage does not read; gives all nodes of its syntax tree."""
    shown = shortened(expression)
    if closes(expression):
        raise Refused(f"{shown}: it closes a bracket that it did not open.")
    node = _parsed(connection, f"SELECT ({expression}\n)", expression, views)["node"]
    alone = node["type"] == "SELECT_NODE" and node["from_table"]["type"] == "EMPTY" and len(node["select_list"]) == 1
    plain = ("where_clause", "having", "qualify", "sample", "group_expressions", "modifiers")
    if not alone or any(node[key] for key in plain) or node["cte_map"]["map"]:
        raise Refused(f"{shown}: it must be one expression, such as `agreement.score >= 0.5`.")
    unsteady = _unsteady(connection)
    for inner in _walk(node):
        name = str(inner.get("function_name") or "").lower()
        if inner.get("class") == "COLUMN_REF" and len(inner["column_names"]) == 1:
            name = inner["column_names"][0].lower()
        if name in unsteady:
            raise Refused(f"{shown}: {name} may differ from run to run; a rule must not.")
        if inner.get("sample"):
            raise Refused(f"{shown}: a sample differs from run to run; use a selector of `sampling`.")
        if name == "unnest" and inner.get("class") == "FUNCTION":
            raise Refused(f"{shown}: unnest changes the number of rows; use list functions.")
    return list(_walk(node))


def closes(expression: str) -> bool:
    """Whether a text closes a bracket that it did not open, and so one of those that are put around it."""
    letters, depth = expression.encode(), 0
    for place, kind in duckdb.tokenize(expression):
        if kind == duckdb.token_type.operator:
            depth += {b"(": 1, b"[": 1, b"{": 1, b")": -1, b"]": -1, b"}": -1}.get(letters[place : place + 1], 0)
        if depth < 0:
            return True
    return False


def _unsteady(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """The functions whose value is not decided by their arguments."""
    found = connection.sql(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability = 'VOLATILE' "
        "OR function_name LIKE 'current\\_%' ESCAPE '\\' OR function_name LIKE 'get\\_current\\_%' ESCAPE '\\'"
    ).fetchall()
    # Spelled without brackets these are columns to the parser, and some of them no functions of their own.
    words = {"current_timestamp", "current_time", "localtime", "localtimestamp", "user", "session_user", "current_user"}
    return {name for (name,) in found} - {"error"} | UNSTEADY | words


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping inside a syntax tree."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value)
