"""Prompts from files of the user's own. A path is relative to the folder of `params.yaml`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import Refused
from pipeline.kinds.source import BadRow, GivenRow, Rows, source

SHOWN = 2_000


def read_files(given: Mapping[str, Any]) -> list[str]:
    """The files that these arguments name."""
    return [given["path"]]


@source(files=read_files)
def jsonl(*, path: str) -> Rows:
    """One JSON object per line; a broken line is a bad row, an empty line is nothing.

    Paper: none.
    Differs: nothing.
    """
    with _existing(path).open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _parsed(line.removeprefix(b"\xef\xbb\xbf"), f"{path}:{number}")


def _parsed(line: bytes, place: str) -> GivenRow | BadRow:
    shown = line[:SHOWN].decode("utf-8", "replace")
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return BadRow(place, f"is not UTF-8 (byte {error.start} is {line[error.start]:#04x})", shown)
    except (ValueError, RecursionError) as error:
        return BadRow(place, f"is not JSON ({getattr(error, 'msg', error)})", shown)
    if not isinstance(row, dict):
        return BadRow(place, f"is not a JSON object but {type(row).__name__}", shown)
    return GivenRow(place, row)


@source(files=read_files)
def parquet(*, path: str) -> Rows:
    """The rows of a Parquet file, numbered from 1.

    Paper: none.
    Differs: nothing.
    """
    number = 0
    try:
        with pq.ParquetFile(_existing(path)) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield GivenRow(f"{path}:{number}", row)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path} cannot be read as Parquet after row {number}: {error}") from error


def _existing(path: str) -> Path:
    file = Path(path)
    if not file.is_file():
        raise Refused(f"{path} is missing; a path is relative to the folder of params.yaml ({Path.cwd()})")
    return file
