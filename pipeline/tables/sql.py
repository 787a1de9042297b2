"""Views over the tables, for rules and for people, on a connection that can only read them.

Every table is a view of its own name, with two more columns: `instance`, the name of the table's folder, and `of`,
the folder between (`teacher` and `train` for responses/train/teacher); a rollout's `instance` is the model that it lies
beside. `scores_wide` is the view that rules read: the responses, and one struct per scorer, so that
`agreement.score >= 0.5 AND finish_reason = 'stop'` is a rule and `base_nll.score - teacher_nll.score` a derived score.

The settings of the connection hold behind what is checked of a user's text (`rules.py`): no file but the tables' own,
no extension, no change of a setting. One thread, because DuckDB's sums of floats depend on their number. A user's text
runs in a child process (`bounded.py`), because DuckDB passes its own limit of memory, and knows none of time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.bounded import HELD, Limits
from pipeline.contracts import RESPONSES, ROLLOUTS, SCORES, TABLES, Table
from pipeline.display import nearest
from pipeline.errors import Refused
from pipeline.tables import manifest
from pipeline.tables.parquet import Scan

# A part of a syntax tree, as DuckDB gives it.
Node = Mapping[str, Any]
MEMORY = 5_000_000_000
LIMITS = Limits(seconds=300, memory=MEMORY)
# The share of the memory that DuckDB is told of: it then mostly says by itself what it lacks.
TOLD = 0.8
# What the struct of a scorer holds.
FIELDS = ("score", "quantities", "vector", "detail")
HEAVY = ("token_ids", "logprobs", "inputs", "outputs", "truth", "features")

VIEWS = {name: f"key {', '.join(table.key)}" for name, table in TABLES.items()} | {
    "scores_wide": "the responses without tokens or arrays, a column per scorer: {score, quantities, vector, detail}",
    "manifests": "a row per table of signals: whose they are, and how far a second reading of some rows is from them",
}
# A manifest as a row (`manifest.py`), as far as rules speak of it; null where there is none.
MANIFESTS = pa.schema({
    "instance": pa.string(),
    "of": pa.string(),
    "teacher": pa.string(),
    "dtype": pa.string(),
    "rows": pa.int64(),
    "top_k": pa.int64(),
    "store": pa.string(),
    "temperatures": pa.list_(pa.float64()),
    "reread": pa.int64(),
    "distance": pa.float64(),
    "furthest": pa.float64(),
    "target": pa.float64(),
})  # fmt: skip
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
    # Chen et al. 2021 (Codex, arXiv 2107.03374), equation 1: of n samples c are right; that one of k is.
    "pass_at(n, c, k) AS CASE WHEN k <= n AND c IS NOT NULL THEN "
    "1 - coalesce(list_product([1 - k / i for i in range((n - c + 1)::BIGINT, (n + 1)::BIGINT)]), 1) END",
    # Li et al. 2023 (DiVeRSe): the share of an answer's class (`consistency.classes`) in its siblings' opinions.
    "trusted(opinion, class) AS CASE WHEN class IS NOT NULL THEN "
    "sum(opinion) OVER (PARTITION BY prompt_id, entry, class)"
    " / nullif(sum(opinion) OVER (PARTITION BY prompt_id, entry), 0) END",
    # Tang et al. 2023 (KD3): the mean of two distributions (`confidence.distribution`), and how sure it is of its
    # likeliest class, as a share of how sure it ever is of that class, so that each class has a threshold of its own.
    "combined(teacher, student) AS CASE WHEN len(teacher) = len(student) THEN "
    "list_transform(list_zip(teacher, student), lambda p: (p[1] + p[2]) / 2) END",
    "sureness(distribution) AS list_max(distribution)"
    " / max(list_max(distribution)) OVER (PARTITION BY list_position(distribution, list_max(distribution)))",
    # Of a cell of arrays: has(inputs, 'mask'), shape_of(inputs, 'image').
    "has(arrays, wanted) AS coalesce(len(list_filter(arrays, lambda a: a.name = wanted)) > 0, false)",
    "shape_of(arrays, wanted) AS list_filter(arrays, lambda a: a.name = wanted)[1].shape",
)


@dataclass(frozen=True)
class Leaf:
    """One table on disk; without files, an empty one."""

    table: Table
    instance: str
    of: str
    files: tuple[Path, ...] = ()

    def select(self) -> str:
        files = ", ".join(_text(str(file.resolve())) for file in self.files)
        source = f"read_parquet([{files}])"
        columns = [quoted(c) for c in self.table.columns]
        if not self.files:
            source = "(SELECT 1) WHERE false"
            columns = [f"NULL::{_type(c.type)} AS {quoted(n)}" for n, c in self.table.columns.items()]
        return f"SELECT {', '.join(columns)}, {_text(self.instance)} AS instance, {_text(self.of)} AS of FROM {source}"


def connect(
    scans: Iterable[Scan], data: Path, memory: int | None = None, spill: Path | None = None, held: int = HELD
) -> duckdb.DuckDBPyConnection:
    """A connection that sees the views over exactly the files of these scans; `data` is the folder of all tables."""
    return opened(leaves_of(scans, data), None, memory, spill, held)


def leaves_of(scans: Iterable[Scan], data: Path) -> list[Leaf]:
    """The tables of these scans, one by one."""
    leaves = []
    for scan in scans:
        for folder in scan.folders:
            of = folder.relative_to(data / scan.table.name).parent.as_posix()
            files = Scan(scan.table, (folder,), scan.part).files
            leaves.append(Leaf(scan.table, folder.name, "" if of == "." else of, tuple(files)))
    return leaves


def rollouts_of(data: Path) -> list[Leaf]:
    """What students answered while they learnt: a table beside each model that was trained so."""
    folders = sorted((data / "models").glob(f"*/{ROLLOUTS.name}"))
    return [Leaf(ROLLOUTS, folder.parent.name, "", tuple(Scan(ROLLOUTS, (folder,)).files)) for folder in folders]


def empty(scorers: Sequence[str]) -> duckdb.DuckDBPyConnection:
    """The views without rows, as if these scorers had run: what a rule is checked against before anything runs."""
    return opened([Leaf(SCORES, scorer, "") for scorer in scorers])


def opened(
    leaves: list[Leaf],
    answers: pa.Table | None = None,
    memory: int | None = None,
    spill: Path | None = None,
    held: int = HELD,
) -> duckdb.DuckDBPyConnection:
    """A connection with the views over these tables, that can do nothing else.

    Its sorts, joins and groups hold `memory` bytes; with a folder `spill`, they hold no more than `held` of them and
    put the rest there.
    """
    connection = duckdb.connect(":memory:")
    by_table: dict[str, list[Leaf]] = {name: [] for name in TABLES}
    for leaf in leaves:
        by_table[leaf.table.name].append(leaf)
    for name, table in TABLES.items():
        rows = _union(by_table[name] or [Leaf(table, "", "")])
        connection.execute(f"CREATE VIEW {quoted(name)} AS {rows}")
    connection.execute(f"CREATE VIEW scores_wide AS {_wide(by_table['scores'])}")
    connection.register("told", _manifests(by_table["signals"]))
    connection.execute("CREATE TABLE manifests AS SELECT * FROM told")
    connection.unregister("told")
    if answers is not None:
        connection.register("answers", answers)
        connection.execute(
            "CREATE TABLE pending AS SELECT * FROM answers WHERE request_id NOT IN (SELECT request_id FROM responses)"
        )
        connection.unregister("answers")
    for macro in MACROS:
        connection.execute(f"CREATE MACRO {macro}")
    allowed = ", ".join(_text(str(file.resolve())) for leaf in leaves for file in leaf.files)
    most = TOLD * (memory or MEMORY)
    for setting in (
        f"memory_limit = '{int(most if spill is None else min(held, most))}B'",
        "threads = 1",
        "TimeZone = 'UTC'",
        f"temp_directory = {_text(str(spill) if spill else '')}",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "python_enable_replacements = false",
        f"allowed_paths = [{allowed}]",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    return connection


def narrow(connection: duckdb.DuckDBPyConnection, scans: Iterable[Scan], data: Path, nodes: Sequence[Node]) -> None:
    """Leave out of `scores_wide` the scorers and fields that expressions, as syntax trees, do not name: a join holds
    all that is in a struct, embeddings too, whichever field is asked for."""
    leaves = [leaf for leaf in leaves_of(scans, data) if leaf.table == SCORES]
    named: dict[str, set[str]] = {}
    for names in ([name.lower() for name in node["column_names"]] for node in nodes if "column_names" in node):
        for scorer, field in zip(names, [*names[1:], "*"], strict=True):
            named.setdefault(scorer, set()).add(field)
    every = any(node.get("class") == "STAR" for node in nodes)
    fields: dict[str, Sequence[str]] = {}
    for scorer in {leaf.instance for leaf in leaves}:
        found = {"*"} if every else named.get(scorer.lower(), set())
        if found:
            fields[scorer] = [field for field in FIELDS if field in found and "*" not in found] or FIELDS
    connection.execute(f"CREATE OR REPLACE VIEW scores_wide AS {_wide(leaves, fields)}")


def _wide(scores: list[Leaf], fields: Mapping[str, Sequence[str]] | None = None) -> str:
    """Responses joined with one struct per scorer; a response is matched by the scores of a folder that holds it."""
    own = [c for c in RESPONSES.columns if c not in HEAVY] + ["instance", "of"]
    fields = dict.fromkeys((leaf.instance for leaf in scores), FIELDS) if fields is None else fields
    scorers = sorted(fields)
    taken = sorted(set(scorers) & set(own))
    if taken:
        raise Refused(
            f"a score is called {taken[0]}, and so is a column of responses; rules could not tell them apart. "
            f"Give the entry of `score` or `read` another name."
        )
    selected = [f"r.{quoted(c)}" for c in own]
    joins = []
    for i, scorer in enumerate(scorers):
        rows = _union([leaf for leaf in scores if leaf.instance == scorer])
        selected.append(f"s{i}.value AS {quoted(scorer)}")
        struct = ", ".join(f"{field}: {field}" for field in fields[scorer])
        joins.append(
            f"LEFT JOIN (SELECT response_id, of || '/' AS folder, {{{struct}}} AS value FROM ({rows})) s{i} "
            f"ON s{i}.response_id = r.response_id "
            f"AND starts_with('responses/' || r.of || '/' || r.instance || '/', s{i}.folder)"
        )
    return f"SELECT {', '.join(selected)} FROM responses r {' '.join(joins)}"


def _manifests(leaves: list[Leaf]) -> pa.Table:
    rows = []
    for leaf in leaves:
        found = manifest.read(leaf.files[0].parent) if leaf.files else None
        if found is not None:
            again = found.again.model_dump() if found.again else {"rows": 0}
            said = {**again, **found.model_dump(), "reread": again["rows"], "instance": leaf.instance, "of": leaf.of}
            rows.append({name: said.get(name) for name in MANIFESTS.names})
    return pa.Table.from_pylist(rows, MANIFESTS)


def _union(leaves: list[Leaf]) -> str:
    return " UNION ALL ".join(leaf.select() for leaf in leaves)


def run(connection: duckdb.DuckDBPyConnection, text: str, shown: str, most: int | None = None) -> pa.Table:
    """What a text gives, its first rows if `most` is set; a refusal quotes what is `shown`."""
    with refusing(connection, shown):
        if most is None:
            return connection.sql(text).to_arrow_table()
        reader = connection.sql(text).to_arrow_reader(1000)
        batches: list[pa.RecordBatch] = []
        while sum(map(len, batches)) < most and (batch := next(reader, None)) is not None:
            batches.append(batch)
        return pa.Table.from_batches(batches, reader.schema).slice(0, most)


@contextmanager
def refusing(connection: duckdb.DuckDBPyConnection, shown: str) -> Iterator[None]:
    """What DuckDB says is wrong with a text as a refusal that quotes what is `shown`."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, OSError) as error:
        # What a reader of rows finds comes through Arrow, as an error of the system without a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if str(error).startswith("Out of Memory"):
            raise MemoryError(str(error)) from error
        raise Refused(f"{shortened(shown)}: {said(error)}{_scorers(connection, error)}") from error


def _scorers(connection: duckdb.DuckDBPyConnection, error: Exception) -> str:
    """What else the text may have meant: the nearest name of `scores_wide`, and all scorers."""
    described = connection.sql("DESCRIBE scores_wide").fetchall()
    names = [name for name, type_, *_ in described if type_.startswith("STRUCT(score ")]
    unknown = re.search(r'Referenced (?:table|column) "(.+?)" not found', str(error))
    near = nearest(unknown[1], [name for name, *_ in described]) if unknown else ""
    return f"{near.replace('; did', ' Did')} The scorers here are: {', '.join(names) or 'none'}."


def _type(type_: pa.DataType) -> str:
    """DuckDB's name of an Arrow type of the contracts."""
    if pa.types.is_list(type_):
        return f"{_type(type_.value_type)}[]"
    if pa.types.is_map(type_):
        return f"MAP({_type(type_.key_type)}, {_type(type_.item_type)})"
    if pa.types.is_struct(type_):
        return f"STRUCT({', '.join(f'{quoted(f.name)} {_type(f.type)}' for f in type_)})"
    return {
        pa.string(): "VARCHAR",
        pa.float64(): "DOUBLE",
        pa.float32(): "FLOAT",
        pa.int64(): "BIGINT",
        pa.int32(): "INTEGER",
        pa.bool_(): "BOOLEAN",
        pa.binary(): "BLOB",
    }[type_]


def quoted(word: str) -> str:
    """A word as a name in SQL."""
    return '"' + word.replace('"', '""') + '"'


def _text(word: str) -> str:
    return "'" + word.replace("'", "''") + "'"


def shortened(text: str) -> str:
    """A text as it is quoted in a refusal."""
    return repr(text if len(text) <= 200 else text[:200] + " ...")


def said(error: Exception) -> str:
    """What DuckDB says, with the names that it proposes, and without its drawing of the text."""
    lines = [line.strip() for line in str(error).split("\nLINE ")[0].split("\n") if line.strip()]
    kept = [line for line in lines[1:] if line.startswith(("Candidate", "Did you mean"))]
    return " ".join(line.rstrip(".!?") + ("?" if line.endswith("?") else ".") for line in [*lines[:1], *kept])
