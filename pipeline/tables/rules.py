"""SQL that a user wrote: checked as a syntax tree, one SELECT of the views only, before it runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.contracts import TABLES
from pipeline.errors import Refused
from pipeline.tables.parquet import Scan
from pipeline.tables.sql import VIEWS, empty, first_line, leaves_of, opened, quoted, rollouts_of, run, shortened

NUMBER = r"(BOOLEAN|U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(.*\))"
TYPES = {"condition": "BOOLEAN", "number": NUMBER, "vector": NUMBER + r"\[\d*\]"}

READS = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
ROW_FUNCTIONS = {"unnest", "range", "generate_series", "json_each", "json_tree"}
UNSTEADY = {"age", "now", "today", "transaction_timestamp", "txid_current", "getvariable", "in_search_path"}


def query(data: Path, text: str, answers: pa.Table | None = None) -> pa.Table:
    """What one SELECT says about all tables under `data`.

    `answers` are those that the memo holds (columns PENDING); those of them that are in no table yet are the view
    `pending`.
    """
    scans = [
        Scan(table, (folder,))
        for table in TABLES.values()
        for folder in sorted({file.parent for file in (data / table.name).rglob("part-*.parquet")})
    ]
    leaves = [*leaves_of(scans, data), *rollouts_of(data)]
    connection = opened(leaves, answers)
    _parsed(connection, text, text, {"pending"} if answers is not None else set())
    return run(connection, text, text)


def type_of(connection: duckdb.DuckDBPyConnection, expression: str) -> str:
    """DuckDB's name of the type of a rule's expression over `scores_wide`; refuses what is not a steady expression."""
    check_expression(connection, expression)
    found = run(connection, f"DESCRIBE SELECT response_id, ({expression}\n) FROM scores_wide", expression)
    if found.num_rows != 2:
        raise Refused(f"{expression!r} must be one value per answer; it is {found.num_rows - 1} columns.")
    return found["column_type"][1].as_py()


def faults(rules: Mapping[str, tuple[str, str]], scorers: Sequence[str]) -> list[str]:
    """What is wrong with rules, key -> (text, what it must be: a condition, a number or a vector), in sentences."""
    twice = sorted({name for name in scorers if scorers.count(name) > 1})
    if twice:
        return [f"two scores are called {twice[0]}; rules could not tell them apart. Rename one."]
    try:
        connection = empty(scorers)
    except Refused as error:
        return [str(error)]
    texts = []
    for key, (text, wanted) in rules.items():
        try:
            found = type_of(connection, text)
        except Refused as error:
            texts.append(f"{key}: {error}")
            continue
        if not re.fullmatch(TYPES[wanted], found):
            texts.append(f"{key}: {shortened(text)} must be a {wanted}; it is {found}.")
    return texts


def columns(connection: duckdb.DuckDBPyConnection, expressions: Mapping[str, str]) -> pa.Table:
    """Expressions over `scores_wide` as columns beside `response_id`, ordered by it."""
    for expression in expressions.values():
        check_expression(connection, expression)
    # The = keeps these names from being taken for columns inside another expression.
    listed = ", ".join(f"({text}\n) AS {quoted('=' + name)}" for name, text in expressions.items())
    found = run(
        connection,
        f"SELECT response_id, {listed} FROM scores_wide ORDER BY response_id",
        "; ".join(expressions.values()),
    )
    return found.rename_columns(["response_id", *expressions])


def _parsed(
    connection: duckdb.DuckDBPyConnection, text: str, shown: str, more: Set[str] = frozenset()
) -> dict[str, Any]:
    """The syntax tree of a text that is one SELECT of the views, and of `more`, or a refusal that says what it is."""
    shown = shortened(shown)
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise Refused(f"{shown}: {first_line(error)}") from error
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
    known = {*VIEWS, *more, *(c["key"].lower() for node in nodes if "cte_map" in node for c in node["cte_map"]["map"])}
    for node in nodes:
        kind = str(node.get("type", ""))
        if kind.endswith("_NODE") and kind not in READS:
            raise Refused(f"{shown}: it must only read; it holds {kind.split('_')[0].lower()}.")
        if kind == "BASE_TABLE" and (node["schema_name"] or node["table_name"].lower() not in known):
            raise Refused(f"{shown}: there is no view {node['table_name']!r}; there are {', '.join(VIEWS)}.")
        if kind == "TABLE_FUNCTION" and node["function"]["function_name"].lower() not in ROW_FUNCTIONS:
            name = node["function"]["function_name"]
            raise Refused(f"{shown}: {name}(...) is not allowed after FROM; the views are {', '.join(VIEWS)}.")
    return statement


def check_expression(connection: duckdb.DuckDBPyConnection, expression: str) -> None:
    """Refuse what is not exactly one expression, or could differ from run to run, or change the number of rows."""
    shown = shortened(expression)
    node = _parsed(connection, f"SELECT ({expression}\n)", expression)["node"]
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
