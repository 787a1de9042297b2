"""Great Expectations over DuckDB: a suite against a table, without pandas.

The rows are made flat once, over the views of `sql.py`, into a DuckDB file; every expectation is then SQL over that.
One thread, so that the rows that are named do not depend on the machine.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from pipeline.bounded import Limits
from pipeline.checking.suites import SUITES, CheckParams, Expectation, Suite
from pipeline.errors import Refused
from pipeline.tables import sql
from pipeline.tables.parquet import Scan
from pipeline.tables.rules import within

NAMED = 5
# Rows that come from DuckDB together.
BATCH = 8192


@dataclass(frozen=True)
class Validation:
    """What was found: the facts, and the same as the document that Great Expectations draws."""

    verdict: dict[str, Any]
    document: dict[str, Any]


def validate(params: CheckParams, scan: Scan, data: Path, scratch: Path, limits: Limits = sql.LIMITS) -> Validation:
    """Hold a table against its suite; `limits` bound the rules that a user wrote; rows are put in `scratch`."""
    suite = SUITES[params.suite]
    expectations = params.expectations
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        file = Path(folder) / "checked.duckdb"
        _flatten(params, suite, expectations, scan, data, file, limits)
        results, document = _ask(suite, expectations, file, limits)
    found = [_finding(e, results[e.name], suite) for e in expectations]
    verdict = {
        "of": params.of,
        "suite": params.suite,
        "success": all(f["success"] for f in found),
        "rows": scan.count(),
        "expectations": found,
    }
    return Validation(verdict, document)


def _flatten(
    params: CheckParams,
    suite: Suite,
    expectations: Sequence[Expectation],
    scan: Scan,
    data: Path,
    file: Path,
    limits: Limits,
) -> None:
    """Make a file of the columns that are looked at, a row for each row of the table."""
    columns = dict.fromkeys([*suite.names, "excerpt", *(e.column for e in expectations if e.column)])
    rules = "".join(f", ({rule.rule}\n) AS {rule.column}" for rule in params.expect)
    # Sorted by all that is in it: which rows are named must not depend on how windows were computed.
    text = f"SELECT {', '.join(columns)} FROM (SELECT *{rules} FROM ({suite.checked})) ORDER BY ALL"

    def flat() -> None:
        spill = file.with_suffix(".spill")
        rows = sql.connect([scan], data, limits.memory, spill, limits.held).sql(text).to_arrow_reader(BATCH)
        with duckdb.connect(file, config=_bounds(limits)) as connection:
            connection.register("rows", rows)
            connection.execute("CREATE TABLE checked AS SELECT * FROM rows")

    if not params.expect:
        flat()
        return
    try:
        shown = "; ".join(f"the rule {rule.name}: {rule.rule}" for rule in params.expect)
        within(limits, shown, flat)
    except (duckdb.Error, OSError) as error:
        raise Refused(
            f"a rule under `expect:` cannot be computed for every row of data/{params.of}: {error}. "
            f"TRY_CAST and coalesce make a rule hold for any text."
        ) from error


def _bounds(limits: Limits) -> dict[str, Any]:
    """How DuckDB opens the file; what does not fit the memory lies beside it."""
    return {"memory_limit": f"{limits.held}B", "threads": 1}


def _ask(
    suite: Suite, expectations: Sequence[Expectation], file: Path, limits: Limits
) -> tuple[dict[str, Mapping[str, Any]], dict[str, Any]]:
    """Each expectation's result by name, and the document about all of them."""
    # The packages below warn of their own internals while they are imported and used.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig
        from great_expectations.execution_engine import sqlalchemy_execution_engine as engine
        from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer

        # Great Expectations closes the connection before it reads the cursor, unless the dialect is on this list.
        if all(dialect.value != "duckdb" for dialect in engine._PERSISTED_CONNECTION_DIALECTS):
            listed = (*engine._PERSISTED_CONNECTION_DIALECTS, _Dialect("duckdb"))
            engine._PERSISTED_CONNECTION_DIALECTS = listed  # type: ignore[assignment]
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        config = {**_bounds(limits), "enable_external_access": "false", "lock_configuration": "true"}
        source = context.data_sources.add_sql(  # type: ignore[call-arg]
            name="duckdb", connection_string=f"duckdb:///{file}", kwargs={"connect_args": {"config": config}}
        )
        try:
            asset = source.add_table_asset(suite.table.name, table_name="checked")
            batch = asset.add_batch_definition_whole_table("all").get_batch()
            asked = [getattr(gx.expectations, e.kind)(**e.kwargs, meta={"name": e.name}) for e in expectations]
            told = batch.validate(
                context.suites.add(gx.ExpectationSuite(suite.table.name, expectations=asked)),
                result_format={
                    "result_format": "COMPLETE",
                    "unexpected_index_column_names": [*suite.names, "excerpt"],
                },
            )
        finally:
            source.get_execution_engine().close()
        document = ValidationResultsPageRenderer(run_info_at_end=True).render(told).to_json_dict()
    # The last section tells times and versions, not data.
    document["sections"] = document["sections"][:-1]
    results = {}
    for result in told.to_json_dict()["results"]:
        name = result["expectation_config"]["meta"]["name"]
        raised = result["exception_info"]
        if raised.get("raised_exception", True):
            raise Refused(f"the expectation {name} could not be computed: {raised}")
        results[name] = result
    return results, document


class _Dialect(str):
    """A name with the one attribute that the list's own entries have."""

    value = property(str.__str__)


def _finding(expectation: Expectation, told: Mapping[str, Any], suite: Suite) -> dict[str, Any]:
    """One expectation's line of the verdict."""
    result = told["result"]
    finding = {
        "name": expectation.name,
        "about": expectation.about,
        "kind": expectation.kind,
        "kwargs": dict(expectation.kwargs),
        "expected": expectation.expected,
        "success": told["success"],
    }
    if "observed_value" in result:
        return {**finding, "observed": result["observed_value"], "offending": []}
    unexpected = result["unexpected_count"] or 0
    checked = result["element_count"] - result.get("missing_count", 0)
    # Rows that offend together, such as two with one id, have equal values in the column looked at.
    offending = sorted(
        result["unexpected_index_list"],
        key=lambda row: [str(row[c]) for c in (expectation.column, *suite.names)],
    )
    return {
        **finding,
        "observed": round(1 - unexpected / checked, 6) if checked else 1.0,
        "checked": checked,
        "unexpected": unexpected,
        "offending": offending[:NAMED],
    }
