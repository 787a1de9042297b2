"""SQL over the tables: views for rules and for people, on a connection that can only read them.

Every table is a view of its own name, with two more columns: `instance`, the name of the table's folder, and `of`,
the folder between (`teacher` and `train` for responses/train/teacher). `scores_wide` is the view that rules read: the
responses, and one struct per scorer, so that `agreement.score >= 0.5 AND finish_reason = 'stop'` is a rule and
`base_nll.score - teacher_nll.score` a derived score.

Text that a user wrote is checked as a syntax tree before it runs: one SELECT, of these views only. The settings of
the connection hold behind that: no file but the tables' own, no extension, no change of a setting. One thread, because
DuckDB's sums of floats depend on their number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from pipeline.contracts import RESPONSES, SCORES, TABLES, Table
from pipeline.errors import Refused
from pipeline.tables import Scan

if TYPE_CHECKING:
    from pipeline.plan import Plan

MEMORY = "4GB"
HEAVY = ("token_ids", "logprobs")

VIEWS = {name: f"key {', '.join(table.key)}" for name, table in TABLES.items()} | {
    "scores_wide": "the responses without tokens, and a column per scorer: {score, parts, vector, detail}"
}
# For people only: it differs from moment to moment, so no rule may read it.
PENDING = pa.schema({
    "instance": pa.string(),
    "prompt_id": pa.string(),
    "sample": pa.int64(),
    "content": pa.string(),
    "reasoning": pa.string(),
    "finish_reason": pa.string(),
    "prompt_tokens": pa.int64(),
    "completion_tokens": pa.int64(),
    "cost_usd": pa.float64(),
    "put_at": pa.timestamp("us", "UTC"),
    "request_id": pa.string(),
})  # fmt: skip

MACROS = (
    # Li et al. 2024 (Cherry LLM): mean loss of the answer with its instruction over that without it.
    "ifd(conditional_nll, direct_nll) AS conditional_nll / nullif(direct_nll, 0)",
    # Gu et al. 2025 (MiniPLM), difference sampling: what the teacher knows and the small model does not.
    "miniplm(reference_nll, teacher_nll) AS reference_nll - teacher_nll",
    # Liu et al. 2024 (DEITA): complexity times quality, for one turn.
    "deita(complexity, quality) AS complexity * quality",
)

NUMBER = r"(BOOLEAN|U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(.*\))"
TYPES = {"condition": "BOOLEAN", "number": NUMBER, "vector": NUMBER + r"\[\d*\]"}

READS = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
ROW_FUNCTIONS = {"unnest", "range", "generate_series", "json_each", "json_tree"}
UNSTEADY = {"age", "now", "today", "transaction_timestamp", "txid_current", "getvariable", "in_search_path"}


@dataclass(frozen=True)
class _Leaf:
    """One table on disk; without files, an empty one."""

    table: Table
    instance: str
    of: str
    files: tuple[Path, ...] = ()

    def select(self) -> str:
        files = ", ".join(_text(str(file.resolve())) for file in self.files)
        source = f"read_parquet([{files}])"
        columns = [_name(c) for c in self.table.columns]
        if not self.files:
            source = "(SELECT 1) WHERE false"
            columns = [f"NULL::{_type(c.type)} AS {_name(n)}" for n, c in self.table.columns.items()]
        return f"SELECT {', '.join(columns)}, {_text(self.instance)} AS instance, {_text(self.of)} AS of FROM {source}"


def connect(scans: Iterable[Scan], data: Path) -> duckdb.DuckDBPyConnection:
    """A connection that sees the views over exactly the files of these scans; `data` is the folder of all tables."""
    return _open(_leaves(scans, data))


def _leaves(scans: Iterable[Scan], data: Path) -> list[_Leaf]:
    leaves = []
    for scan in scans:
        for folder in scan.folders:
            of = folder.relative_to(data / scan.table.name).parent.as_posix()
            files = Scan(scan.table, (folder,), scan.part).files
            leaves.append(_Leaf(scan.table, folder.name, "" if of == "." else of, tuple(files)))
    return leaves


def empty(scorers: Sequence[str]) -> duckdb.DuckDBPyConnection:
    """The views without rows, as if these scorers had run: what a rule is checked against before anything runs."""
    return _open([_Leaf(SCORES, scorer, "") for scorer in scorers])


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
    leaves = _leaves(scans, data)
    connection = _open(leaves, answers)
    _parsed(connection, text, text, {"pending"} if answers is not None else set())
    return _run(connection, text, text)


def type_of(connection: duckdb.DuckDBPyConnection, expression: str) -> str:
    """DuckDB's name of the type of a rule's expression over `scores_wide`; refuses what is not a steady expression."""
    check_expression(connection, expression)
    found = _run(connection, f"DESCRIBE SELECT response_id, ({expression}\n) FROM scores_wide", expression)
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
            texts.append(f"{key}: {_short(text)} must be a {wanted}; it is {found}.")
    return texts


def scorers_of(plan: Plan, of: str) -> list[str]:
    """The names of the scores that `scores_wide` has for the answers in a folder."""
    return [i.name for i in plan.instances.values() if i.output.startswith(f"scores/{of}/")]


def models_of(plan: Plan, of: str) -> list[str]:
    """Who answers in a folder, as the column `model` names them."""
    outputs = [i for i in plan.instances.values() if i.output == of or i.output.startswith(f"{of}/")]
    return sorted({i.name for i in outputs if i.stage == "generate"})


def columns(connection: duckdb.DuckDBPyConnection, expressions: Mapping[str, str]) -> pa.Table:
    """Expressions over `scores_wide` as columns beside `response_id`, ordered by it."""
    for expression in expressions.values():
        check_expression(connection, expression)
    # The = keeps these names from being taken for columns inside another expression.
    listed = ", ".join(f"({text}\n) AS {_name('=' + name)}" for name, text in expressions.items())
    found = _run(
        connection,
        f"SELECT response_id, {listed} FROM scores_wide ORDER BY response_id",
        "; ".join(expressions.values()),
    )
    return found.rename_columns(["response_id", *expressions])


def _open(leaves: list[_Leaf], answers: pa.Table | None = None) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:")
    by_table: dict[str, list[_Leaf]] = {name: [] for name in TABLES}
    for leaf in leaves:
        by_table[leaf.table.name].append(leaf)
    for name, table in TABLES.items():
        rows = _union(by_table[name] or [_Leaf(table, "", "")])
        connection.execute(f"CREATE VIEW {_name(name)} AS {rows}")
    connection.execute(f"CREATE VIEW scores_wide AS {_wide(by_table['scores'])}")
    if answers is not None:
        connection.register("answers", answers)
        connection.execute(
            "CREATE TABLE pending AS SELECT * FROM answers WHERE request_id NOT IN (SELECT request_id FROM responses)"
        )
        connection.unregister("answers")
    for macro in MACROS:
        connection.execute(f"CREATE MACRO {macro}")
    allowed = ", ".join(_text(str(file.resolve())) for leaf in leaves for file in leaf.files)
    for setting in (
        f"memory_limit = '{MEMORY}'",
        "threads = 1",
        "TimeZone = 'UTC'",
        "temp_directory = ''",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "python_enable_replacements = false",
        f"allowed_paths = [{allowed}]",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    return connection


def _wide(scores: list[_Leaf]) -> str:
    """Responses joined with one struct per scorer; a response is matched by the scores of a folder that holds it."""
    own = [c for c in RESPONSES.columns if c not in HEAVY] + ["instance", "of"]
    scorers = sorted({leaf.instance for leaf in scores})
    taken = sorted(set(scorers) & set(own))
    if taken:
        raise Refused(
            f"a score is called {taken[0]}, and so is a column of responses; rules could not tell them apart. "
            f"Give the entry of `score` or `read` another name."
        )
    selected = [f"r.{_name(c)}" for c in own]
    joins = []
    for i, scorer in enumerate(scorers):
        rows = _union([leaf for leaf in scores if leaf.instance == scorer])
        selected.append(f"s{i}.value AS {_name(scorer)}")
        joins.append(
            f"LEFT JOIN (SELECT record_id, of || '/' AS folder, {{score: score, parts: parts, vector: vector, "
            f"detail: detail}} AS value FROM ({rows})) s{i} ON s{i}.record_id = r.response_id "
            f"AND starts_with('responses/' || r.of || '/' || r.instance || '/', s{i}.folder)"
        )
    return f"SELECT {', '.join(selected)} FROM responses r {' '.join(joins)}"


def _union(leaves: list[_Leaf]) -> str:
    return " UNION ALL ".join(leaf.select() for leaf in leaves)


def _run(connection: duckdb.DuckDBPyConnection, text: str, shown: str) -> pa.Table:
    try:
        return connection.sql(text).to_arrow_table()
    except duckdb.Error as error:
        raise Refused(f"{_short(shown)}: {_first_line(error)}{_scorers(connection)}") from error


def _scorers(connection: duckdb.DuckDBPyConnection) -> str:
    described = connection.sql("DESCRIBE scores_wide").fetchall()
    names = [name for name, type_, *_ in described if type_.startswith("STRUCT(score ")]
    return f" The scorers here are: {', '.join(names) or 'none'}."


def _parsed(
    connection: duckdb.DuckDBPyConnection, text: str, shown: str, more: Set[str] = frozenset()
) -> dict[str, Any]:
    """The syntax tree of a text that is one SELECT of the views, and of `more`, or a refusal that says what it is."""
    shown = _short(shown)
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise Refused(f"{shown}: {_first_line(error)}") from error
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
    shown = _short(expression)
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


def _type(type_: pa.DataType) -> str:
    """DuckDB's name of an Arrow type of the contracts."""
    if pa.types.is_list(type_):
        return f"{_type(type_.value_type)}[]"
    if pa.types.is_map(type_):
        return f"MAP({_type(type_.key_type)}, {_type(type_.item_type)})"
    if pa.types.is_struct(type_):
        return f"STRUCT({', '.join(f'{_name(f.name)} {_type(f.type)}' for f in type_)})"
    return {
        pa.string(): "VARCHAR",
        pa.float64(): "DOUBLE",
        pa.float32(): "FLOAT",
        pa.int64(): "BIGINT",
        pa.int32(): "INTEGER",
        pa.bool_(): "BOOLEAN",
    }[type_]


def _name(word: str) -> str:
    return '"' + word.replace('"', '""') + '"'


def _text(word: str) -> str:
    return "'" + word.replace("'", "''") + "'"


def _short(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + " ...")


def _first_line(error: duckdb.Error) -> str:
    return str(error).split("\n")[0].rstrip(".!") + "."
