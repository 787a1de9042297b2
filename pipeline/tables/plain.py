"""Rows in files that other tools read: Parquet of any columns, and JSON lines. The bytes depend on the rows alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.tables.parquet import batched

# Rows of a row group: few enough that rows of signals are a hundred megabytes at most.
GROUP = 1000
Row = Mapping[str, Any]


def write_parquet(file: Path, schema: pa.Schema, rows: Iterable[Row]) -> int:
    """Rows as a Parquet file; returns their number."""
    written = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for some in batched(rows, GROUP):
            writer.write_table(pa.Table.from_pylist(some, schema), GROUP)
            written += len(some)
    return written


def write_lines(file: Path, rows: Iterable[Row]) -> int:
    """Rows as JSON lines, UTF-8; returns their number."""
    written = 0
    with file.open("w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += 1
    return written


def read(folder: Path, files: str) -> Iterator[dict[str, Any]]:
    """The rows of the files of a folder that a pattern names."""
    for file in sorted(folder.glob(files)):
        if file.suffix == ".parquet":
            yield from pq.ParquetFile(file).read().to_pylist()
        else:
            with file.open(encoding="utf-8", newline="\n") as lines:
                yield from map(json.loads, lines)
