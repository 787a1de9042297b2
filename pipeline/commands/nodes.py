"""The instances of a plan as lineage tells them: each with what it was made of and the record of its run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.core.graph import inside
from pipeline.core.stage import stage_named
from pipeline.report.arms import Lineage

# An id, or the beginning of one.
ID = re.compile(r"[0-9a-f]{6,32}")
RECORDED = ("exactness", "rows", "output", "commit", "finished", "wall_s", "packages")
# A gate only says that a table passed, and its verdict is about a table that is in the tree.
BESIDE = ("gates/", "quality/")


@dataclass(frozen=True)
class Node:
    """One instance, its parameters and the fingerprint of its code, what is known of its run, and the folders that it
    was made from."""

    folder: str
    label: str
    methods: tuple[str, ...]
    params: Mapping[str, Any]
    code: str
    rows: int | None
    kept: int | None
    record: Mapping[str, Any]
    inputs: tuple[str, ...]


def upstream(lineage: Lineage, data: Path, folder: str) -> list[Node]:
    """The instance that writes a folder, and then all that it was made from, each once."""
    found: dict[str, Node] = {}
    waiting = [folder]
    while waiting:
        here = waiting.pop(0)
        if here not in found:
            found[here] = _node(lineage, data, here)
            waiting.extend(found[here].inputs)
    return list(found.values())


def _node(lineage: Lineage, data: Path, folder: str) -> Node:
    plan = lineage.plans[folder]
    sources = [source for given in plan["inputs"].values() for source in given if not source.startswith(BESIDE)]
    files = sorted((data / folder).glob("part-*.parquet"))
    return Node(
        folder=folder,
        label=f"{plan['stage']}@{plan['instance']}",
        methods=tuple(sorted(_methods(plan["params"]))),
        params=plan["params"],
        code=plan["code"],
        rows=sum(pq.read_metadata(file).num_rows for file in files) if files else None,
        kept=_kept_rows(files) if plan["stage"] == "select" and files else None,
        record=_record(data, plan),
        # A source may be a folder inside an output, such as a model's tokenizer.
        inputs=tuple(o for o in lineage.plans if any(inside(s, o) for s in sources)),
    )


def _methods(given: object) -> Iterable[str]:
    """The names of all methods that parameters use, however deep."""
    if isinstance(given, Mapping):
        if given.keys() == {"name", "arguments"}:
            yield given["name"]
        for value in given.values():
            yield from _methods(value)
    elif isinstance(given, list):
        for value in given:
            yield from _methods(value)


def _kept_rows(files: Sequence[Path]) -> int:
    return sum(sum(pq.ParquetFile(file).read(columns=["kept"])["kept"].to_pylist()) for file in files)


def _record(data: Path, plan: Mapping[str, Any]) -> dict[str, Any]:
    """What is recorded about the run of this plan; empty if the record is of another plan, or of another machine."""
    path = data / ".runs" / plan["stage"] / f"{plan['instance']}.json"
    record = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if record.get("plan") != plan:
        return {"exactness": stage_named(plan["stage"]).exactness}
    return {key: record[key] for key in RECORDED} | {"notes": record.get("notes", {})}
