#!/usr/bin/env bash
# A comparison is true or false for a NaN in Parquet, depending on the other values of its row group.
#
# Versions: pyarrow 26.0.1 writes, duckdb 2.0.1 reads (both as pinned below).
# Behaviour: DuckDB orders NaN above every number, so `score < 0.5` is false for it. pyarrow leaves NaN out of the
#   statistics of a column chunk. From statistics of 0.1 to 0.2 DuckDB concludes that a filter `score < 0.5` holds for all
#   rows and skips it: rows with NaN pass. With 0.9 among the values it compares, and they do not.
# The usual guess: a NaN never passes `<`, as in IEEE 754 and in DuckDB's own tables; and whether a row passes a filter
#   does not depend on other rows.
# Why it matters: scores are kept in Parquet and rows chosen by SQL over them. A scorer that gives NaN for what it could
#   not read has those rows chosen by `score < 0.5`, `score <= 0.2` or `BETWEEN`, and one more row elsewhere changes it.
# What to do: refuse NaN where the table is written, and store null instead.
# Output seen:
#   table in memory, 0.1 0.2 NaN: 2 rows below 0.5
#   Parquet, 0.1 0.2 NaN: 3 rows below 0.5
#   Parquet, 0.1 0.9 NaN: 1 rows below 0.5
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check duckdb==2.0.1 pyarrow==26.0.1
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

found = []
for place, values in (("table in memory", [0.1, 0.2]), ("Parquet", [0.1, 0.2]), ("Parquet", [0.1, 0.9])):
    scores = pa.table({"score": [*values, float("nan")]})
    pq.write_table(scores, "scores.parquet")
    source = "kept" if place == "table in memory" else "'scores.parquet'"
    duckdb.sql("create or replace table kept as select * from scores")
    below = duckdb.sql(f"select count(*) from {source} where score < 0.5").fetchall()[0][0]
    print(f"{place}, {' '.join(map(str, values))} NaN: {below} rows below 0.5")
    found.append(below)
assert found == [2, 3, 1], f"it has changed: {found}"
PYTHON
