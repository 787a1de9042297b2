"""Lineage: from a model back to its prompts, and from one row forward to the models that it taught.

A model's tree is the plan walked upstream, each instance with the record of its run. A row's story is read from the
tables: a prompt, its answers, their scores, who selected them, the examples made of them, the models trained on those
and how these were judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.graph import inside, touching
from pipeline.core.stage import stage_named
from pipeline.display import nearest
from pipeline.errors import Refused
from pipeline.report import arms
from pipeline.report.arms import Lineage
from pipeline.tables import rules

# What one SELECT says about the tables.
Ask = Callable[[str], pa.Table]

# An id, or the beginning of one.
ID = re.compile(r"[0-9a-f]{6,32}")
# Columns by which a row can be named.
IDS = {"prompts": "prompt_id", "responses": "response_id", "examples": "example_id"}
RECORDED = ("exactness", "rows", "output", "commit", "finished", "wall_s", "packages")
# A gate only says that a table passed, and its verdict is about a table that is in the tree.
BESIDE = ("gates/", "quality/")
# What brings something of the world's.
SOURCES = ("acquire@", "ingest@")


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


def find(data: Path, wanted: str) -> list[Node] | dict[str, Any]:
    """What an instance (`kd`, `train@kd`, `examples/coverage`) was made from, or the story of the row with this id."""
    lineage = arms.read(data)
    if not lineage.plans:
        raise Refused(f"{data / 'plan'} holds no plan; `dvc repro` makes one, `dvc pull` brings one")
    folder = _folder(lineage, wanted.removeprefix("data/").rstrip("/"))
    if folder is not None:
        return upstream(lineage, data, folder)
    if ID.fullmatch(wanted):
        return row(lineage, data, lambda text: rules.query(data, text), wanted)
    labels = {f"{p['stage']}@{p['instance']}" for p in lineage.plans.values()}
    near = nearest(wanted, labels | {label.partition("@")[2] for label in labels})
    known = near or f"; there are {', '.join(sorted(labels))}."
    raise Refused(
        f"nothing is called {wanted!r}{known} "
        f"A row is named by its prompt_id, response_id or example_id, or by its first 6 or more characters"
    )


def _folder(lineage: Lineage, wanted: str) -> str | None:
    """The folder that an instance writes; a bare name is a model's first."""
    labels = {f"{p['stage']}@{p['instance']}": folder for folder, p in lineage.plans.items()}
    for folder in (wanted, labels.get(wanted), f"models/{wanted}"):
        if folder in lineage.plans:
            return folder
    named = [label for label in labels if label.partition("@")[2] == wanted and not label.startswith("gate@")]
    if len(named) > 1:
        raise Refused(f"{wanted!r} may be {' or '.join(named)}; write one of these")
    return labels[named[0]] if named else None


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


def downstream(lineage: Lineage, folder: str) -> list[str]:
    """The folders of the instances that read a folder, or what lies in it or around it."""
    sources = {to: [s for given in plan["inputs"].values() for s in given] for to, plan in lineage.plans.items()}
    return [to for to, given in sources.items() if to != folder and any(touching(s, folder) for s in given)]


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


def row(lineage: Lineage, data: Path, ask: Ask, prefix: str) -> dict[str, Any]:
    """The story of one prompt, answer or example, by an id or its beginning."""
    listed = " UNION ".join(
        f"SELECT '{table}' AS what, {key} AS id FROM {table} WHERE starts_with({key}, '{prefix}')"
        for table, key in IDS.items()
    )
    found = ask(f"{listed} ORDER BY id LIMIT 6").to_pylist()
    if not found:
        raise Refused(f"no prompt_id, response_id or example_id begins with {prefix}")
    if len(found) > 1:
        shown = ", ".join(f"{f['id']} ({f['what']})" for f in found[:5]) + (", ..." if len(found) > 5 else "")
        raise Refused(f"{prefix} is the beginning of several ids: {shown}. Write more of it")
    what, key = found[0]["what"], found[0]["id"]

    def rows(table: str, columns: str, column: str, wanted: Iterable[str]) -> list[dict[str, Any]]:
        listed = ", ".join(f"'{w}'" for w in sorted(wanted)) or "NULL"
        return ask(f"SELECT {columns}, instance, of FROM {table} WHERE {column} IN ({listed}) ORDER BY ALL").to_pylist()

    prompt_ids = {key}
    if what != "prompts":
        prompt_ids = {r["prompt_id"] for r in rows(what, "prompt_id", IDS[what], {key})}
    examples = rows("examples", "example_id, prompt_id, weight, response_ids", "prompt_id", prompt_ids)
    if what == "examples":
        examples = [e for e in examples if e["example_id"] == key]
    elif what == "responses":
        examples = [e for e in examples if key in e["response_ids"]]
    answers = rows(
        "responses", "response_id, prompt_id, sample, finish_reason, answer, content, error", "prompt_id", prompt_ids
    )
    if what == "responses":
        answers = [a for a in answers if a["response_id"] == key]
    elif what == "examples":
        answers = [a for a in answers if any(a["response_id"] in e["response_ids"] for e in examples)]
    ids = {a["response_id"] for a in answers}
    taught = {e["instance"]: _taught(lineage, e["instance"]) for e in examples}
    models = {name for names in taught.values() for name in names}
    prompts = rows(
        "prompts",
        "prompt_id, messages, domain, level, source, verifier, reference, operator, parent_ids",
        "prompt_id",
        prompt_ids,
    )
    selections = rows("selections", "response_id, kept, weight, reason", "response_id", ids)
    way = [f"prompts/{r['of']}/{r['instance']}" for r in prompts]
    way += [f"responses/{r['of']}/{r['instance']}" for r in answers]
    way += [f"selections/{r['of']}/{r['instance']}" for r in selections]
    way += [*(f"examples/{name}" for name in taught), *(f"models/{name}" for name in sorted(models))]
    judged = "SELECT model, task, avg(metric) AS accuracy, count(metric) AS n FROM evals GROUP BY ALL ORDER BY ALL"
    return {
        "what": what,
        "id": key,
        "prompts": prompts,
        "drops": rows("drops", "prompt_id, rule, evidence", "prompt_id", prompt_ids),
        "responses": answers,
        "scores": rows("scores", "response_id, score, detail", "response_id", ids),
        "selections": selections,
        "examples": examples,
        "trained": taught,
        "judged": [e for e in ask(judged).to_pylist() if e["model"] in models],
        "evals": rows("evals", "prompt_id, task, model, prediction, target, metric", "prompt_id", prompt_ids),
        "made": _on_the_way(lineage, data, way),
    }


def _on_the_way(lineage: Lineage, data: Path, folders: Iterable[str]) -> list[Node]:
    """The instances that write some folders, and all by which something of the world's came into these."""
    way = [folder for folder in dict.fromkeys(folders) if folder in lineage.plans]
    above = {node.folder: node for folder in way for node in upstream(lineage, data, folder)}
    return [node for name, node in above.items() if name in way or node.label.startswith(SOURCES)]


def _taught(lineage: Lineage, examples: str) -> list[str]:
    """The models that were trained on a table of examples, directly or through signals."""
    return sorted(name for name, arm in lineage.arms.items() if f"examples/{examples}" in arm.examples)
