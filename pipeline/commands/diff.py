"""Diff: what changed between two commits: rows, scores, tokens, and what models got right.

The tables are those that each commit's dvc.lock names, out of DVC's cache or the workspace; nothing is checked out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.commands.screen import show, table
from pipeline.commands.stored import Files, Stored, locked
from pipeline.contracts import TABLES, Table
from pipeline.core.workspace import ROOT
from pipeline.display import listed
from pipeline.report.statistics import paired_bootstrap, verdict
from pipeline.tables import ids

ABOUT = "what changed between two commits: rows, scores, tokens, verdicts"
MORE = "B is the workspace if it is left out. Tables that neither DVC's cache nor the workspace holds are named."

# The column whose sum or mean says most about a table, and how it is called.
TOKENS = {"responses": "completion_tokens", "selections": "tokens"}
SEED = 0


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `diff`."""
    command.add_argument("a", help="a commit, branch or tag")
    command.add_argument("b", nargs="?", help="another; the workspace if left out")


def run(a: str, b: str | None) -> None:
    """Print what changed from one commit to another."""
    show(told(locked(ROOT, a), locked(ROOT, b), Stored(ROOT)))


Lock = Mapping[str, Mapping[str, str]]


def told(before: Lock, after: Lock, stored: Stored) -> Iterator[str]:
    """The changes, in lines."""
    one, two = ({path: md5 for outs in lock.values() for path, md5 in outs.items()} for lock in (before, after))
    changed = sorted(path for path in one.keys() & two.keys() if one[path] != two[path] and path != "data/plan")
    for what, paths in (("gone", one.keys() - two.keys()), ("new", two.keys() - one.keys())):
        yield from (f"{what:<8} {path}" for path in sorted(paths))
    if not changed:
        yield "every output that both have is the same"
        return
    lacking, rows, models = [], [], []
    for path in changed:
        files = stored.files(path, one[path]), stored.files(path, two[path])
        kind = TABLES.get(path.split("/")[1])
        if files[0] is None or files[1] is None:
            lacking.append(path)
        elif kind is not None:
            first, second = (_read(some) for some in files if some is not None)
            rows.append(_rows(path, kind, first, second))
            models += [(path, *line) for line in _judged(first, second)] if kind.name == "evals" else []
        elif (gate := "verdict.json") in files[0] and gate in files[1]:
            yield f"verdict  {path}: {' -> '.join(_passed(some[gate]) for some in files if some is not None)}"
        else:
            yield f"changed  {path}"
    if rows:
        names = ("table", "rows", "", "added", "removed", "changed", "columns", "mean score or tokens", "")
        yield from ("", *table(names, rows))
    if models:
        judged = ("benchmark", "domain", "items", "before", "after", "difference", "95 % bootstrap", "verdict")
        yield from ("", *table(judged, models))
    if lacking:
        yield from ("", f"not here, so not looked at: {listed(lacking)}; `dvc fetch --all-commits` brings them")


def _read(files: Files) -> pa.Table:
    parts = [pq.ParquetFile(file).read() for name, file in sorted(files.items()) if name.endswith(".parquet")]
    return pa.concat_tables(parts, promote_options="default")


def _rows(path: str, kind: Table, before: pa.Table, after: pa.Table) -> tuple[object, ...]:
    """A line about a table: how many rows, which came, went, or say something else now, and in which columns."""
    shared = [name for name in before.column_names if name in after.column_names]
    one, two = (_keyed(rows, kind.key) for rows in (before, after))
    same = sorted(one.keys() & two.keys())
    first, second = before.take([one[key] for key in same]), after.take([two[key] for key in same])
    differs = {name: _unlike(first[name], second[name]) for name in shared}
    changed = np.zeros(len(same), bool)
    for each in differs.values():
        changed |= each
    columns = [name for name, each in differs.items() if each.any()]
    numbers = [_number(kind, rows) for rows in (before, after)]
    return (
        path, len(before), len(after), len(two.keys() - one.keys()), len(one.keys() - two.keys()), int(changed.sum()),
        listed(columns, 3), *numbers,
    )  # fmt: skip


def _keyed(rows: pa.Table, key: Iterable[str]) -> dict[tuple[object, ...], int]:
    columns = [rows[name].to_pylist() for name in key]
    return {names: i for i, names in enumerate(zip(*columns, strict=True))}


def _unlike(one: pa.ChunkedArray, two: pa.ChunkedArray) -> np.ndarray:
    """Which of the rows of two columns differ."""
    if one.equals(two):
        return np.zeros(len(one), bool)
    pairs = zip(one.to_pylist(), two.to_pylist(), strict=True)
    return np.fromiter((a != b for a, b in pairs), bool, len(one))


def _number(kind: Table, rows: pa.Table) -> str:
    """The mean of scores, or a sum of tokens."""
    if kind.name == "scores":
        mean = pc.mean(rows["score"]).as_py()
        return "none" if mean is None else f"{mean:.4g}"
    if kind.name == "examples":
        spans = pc.list_flatten(rows["spans"])
        ends, starts = (pc.sum(pc.struct_field(spans, name)).as_py() or 0 for name in ("end", "start"))
        return f"{ends - starts:,} trained"
    if kind.name in TOKENS:
        kept = rows.filter(rows["kept"]) if kind.name == "selections" else rows
        return f"{pc.sum(kept[TOKENS[kind.name]]).as_py() or 0:,} tokens"
    return ""


def _judged(before: pa.Table, after: pa.Table) -> Iterator[tuple[object, ...]]:
    """Lines about a model: on the items that both judged, all and by domain, how it did, and whether that changed."""
    one, two = (_keyed(rows, ("task", "item_id")) for rows in (before, after))
    same = sorted(one.keys() & two.keys())
    first, second = before.take([one[key] for key in same]), after.take([two[key] for key in same])
    known = pc.and_(pc.is_valid(first["metric"]), pc.is_valid(second["metric"]))
    first, second = first.filter(known), second.filter(known)
    domains = np.array(second["domain"].to_pylist(), object)
    metrics = [rows["metric"].to_numpy() for rows in (first, second)]
    for domain in ("all", *sorted(set(domains))):
        at = domains == domain if domain != "all" else np.ones(len(domains), bool)
        if at.any():
            interval = paired_bootstrap(metrics[1][at], metrics[0][at], ids.seed_of(SEED, "diff", str(domain)))
            bounds = f"{interval.low:+.3f} to {interval.high:+.3f}"
            means = (f"{metric[at].mean():.3f}" for metric in metrics)
            yield domain, int(at.sum()), *means, f"{interval.value:+.3f}", bounds, verdict(interval)


def _passed(file: Path) -> str:
    found = json.loads(file.read_text("utf-8"))["expectations"]
    return "passed" if all(one["success"] for one in found) else "stopped"
