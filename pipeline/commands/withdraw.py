"""Withdraw: a prompt, or all of a source, and everything that was made of it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.commands import traces
from pipeline.commands.traces import Traces
from pipeline.contracts import RESPONSES, SIGNALS
from pipeline.core import graph, withdrawn
from pipeline.core.stage import Plan
from pipeline.core.workspace import DATA, PARAMS, ROOT, memo_folder
from pipeline.display import duration, listed
from pipeline.errors import Refused
from pipeline.kinds.backend import card_of, engine_of
from pipeline.memo.memo import Memo, reading_key
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.plan.status import standings
from pipeline.tables import labels
from pipeline.tables.parquet import Scan, walk
from pipeline.viewing.lineage import ID


@dataclass
class Found:
    """What a name stands for: its prompts, these and those made of them, the answers to them and the ids of what was
    asked, what all of these say, where the first came from, and the folders that hold the prompts."""

    seeds: frozenset[str] = frozenset()
    prompts: set[str] = field(default_factory=set)
    answers: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)


def find(files: Iterable[Path], data: Path, wanted: str) -> Found:
    """All prompts of this id or its beginning, or of this source, in all tables that lie here, and those that were made
    of them or of the answers to them, at any time."""
    found, named = Found(), bool(ID.fullmatch(wanted))
    columns = {file: {*pq.read_schema(file).names} for file in files if traces.is_table(file)}
    pools = [file for file, names in columns.items() if {"source", "messages"} <= names]
    answers = [file for file, names in columns.items() if "request_id" in names]
    for pool in pools:
        for row in _read(pool, "prompt_id", "source").to_pylist():
            if row["prompt_id"].startswith(wanted) if named else withdrawn.comes_from(row["source"], wanted):
                found.prompts.add(row["prompt_id"])
                found.sources.add(row["source"])
    if named and len(found.prompts) > 1:
        raise Refused(f"{wanted} is the beginning of several ids: {listed(sorted(found.prompts))}. Write more of it")
    found.seeds = frozenset(found.prompts)
    before = -1
    while before < len(found.prompts):
        before = len(found.prompts)
        for file in answers:
            rows = _of(_read(file, "response_id", "request_id", "prompt_id", "content"), found.prompts)
            found.answers |= set(rows["response_id"].to_pylist())
            found.asked |= set(rows["request_id"].to_pylist())
            found.texts |= {said for said in rows["content"].to_pylist() if said}
        for file in pools:
            for row in _read(file, "prompt_id", "messages", "parent_ids").to_pylist():
                parents = {*(row.get("parent_ids") or ())}
                if row["prompt_id"] in found.prompts or parents & (found.prompts | found.answers):
                    found.prompts.add(row["prompt_id"])
                    found.folders |= {file.parent.relative_to(data).as_posix()} if file.is_relative_to(data) else set()
                    found.texts |= {turn["content"] for turn in row["messages"] if turn["role"] == "user"}
    return found


def _read(file: Path, *columns: str) -> pa.Table:
    """Some columns of a table, those of them that it has."""
    with pq.ParquetFile(file) as opened:
        return opened.read(columns=list(columns))


def _of(rows: pa.Table, prompts: Collection[str]) -> pa.Table:
    return rows.filter(pc.is_in(rows["prompt_id"], pa.array(sorted(prompts), pa.string())))


def withdraw(wanted: str) -> Iterator[str]:
    """Write the rule, remove what lies beside the tables, and say what is left to do."""
    given = load(PARAMS)
    found = find([*walk(DATA), *walk(traces.cache_of(ROOT))], DATA, wanted)
    kind = "prompts" if ID.fullmatch(wanted) else "sources"
    if not found.prompts and not any(name.startswith(wanted) for name in withdrawn.read(DATA).get(kind, ())):
        raise Refused(
            f"no prompt has the id or the source {wanted!r} in any table here. A source is what "
            f"`stillhouse lineage <id>` shows, such as data/own/prompts.jsonl or one of its lines"
        )
    if found.prompts:
        withdrawn.add(DATA, **{kind: found.seeds if kind == "prompts" else [wanted]})
    rules = withdrawn.read(DATA)
    plan = resolve(given)
    affected = _downstream(plan, found.folders)
    trail = Traces(
        ids=frozenset({*found.prompts, *found.answers, *rules["prompts"]}),
        texts=frozenset(found.texts),
        outputs=frozenset(f"data/{plan.instances[label].output}" for label in affected),
        instances=frozenset(affected),
    )
    yield f"{wanted}: {len(found.prompts)} prompts, {len(found.answers)} answers; rules are in {DATA / withdrawn.FILE}"
    forgotten = Memo(memo_folder()).forget(trail.ids, found.asked | _readings(plan, trail.ids))
    yield f"memo: {forgotten} answers and readings forgotten"
    if labelled := labels.forget(DATA, found.prompts):
        yield f"labels: {labelled} removed"
    yield from (f"{path} removed" for path in traces.forget_files(DATA, trail))
    count, freed = traces.forget_objects(ROOT, trail)
    yield f"DVC's cache and run cache here: {count} objects removed, {freed / 1e6:.1f} MB"
    yield from _left(plan, trail, found)


def _downstream(plan: Plan, folders: Collection[str]) -> set[str]:
    """The instances that write some folders, and all that are made of these."""
    reads = graph.upstream(plan)
    reached = {label for label, i in plan.instances.items() if i.output in folders}
    while more := {label for label, of in reads.items() if label not in reached and reached & {*of}}:
        reached |= more
    return reached


def _readings(plan: Plan, prompts: Collection[str]) -> set[str]:
    """The keys of readings that tables of signals hold; those that were paid for are known by nothing else."""
    from pipeline.stages.probe import Params, recorded

    keys = set()
    for probe in plan.of("probe"):
        if (DATA / probe.output).is_dir() and isinstance(probe.params, Params):
            card = card_of(DATA / "models" / probe.params.model)
            rows = _of(Scan(SIGNALS, (DATA / probe.output,)).read(), prompts)
            want = probe.params.want()
            keys |= {reading_key(tokens, card["model_id"], engine_of(card), want) for tokens, _ in recorded(rows)}
    return keys


def _left(plan: Plan, trail: Traces, found: Found) -> Iterator[str]:
    """What `dvc repro` remakes and what it costs, and what lies beyond this workspace."""
    holding = traces.still_in(DATA, (i.output for i in plan.instances.values()), trail)
    if holding:
        waiting = [s for s in standings(load(PARAMS), plan, ROOT) if s.state in ("must", "may")]
        yield f"still in {', '.join(f'data/{folder}' for folder in holding)}: run `dvc repro`"
        seconds = sum(_seconds(standing.label) for standing in waiting)
        yield f"it makes again, where bytes differ: {', '.join(s.label for s in waiting)}"
        asked, cost = _asked_again(plan, found.prompts)
        paid = f"{asked} answers that the memo does not hold are asked again" + (f", ${cost:.2f}" if cost else "")
        paid += "; `stillhouse memo fill` first saves them" if asked else ""
        yield f"at most {duration(seconds)} as it took before; {paid}"
    else:
        yield "no table holds it any more"
    places = sorted(source for source in found.sources if Path(traces.file_of(source)).exists())
    if places:
        yield f"what they were read from is yours to delete: {listed(places)}"
    if told := traces.commands(ROOT, found.sources, trail):
        yield "beyond what this command may touch:"
        yield from (f"  {command}" for command in told)


def _seconds(label: str) -> float:
    stage, _, name = label.partition("@")
    record = DATA / ".runs" / stage / f"{name or stage}.json"
    return json.loads(record.read_text("utf-8"))["wall_s"] if record.exists() else 0.0


def _asked_again(plan: Plan, prompts: Collection[str]) -> tuple[int, float]:
    """How many answers to other prompts the memo lacks, and what they cost."""
    memo, lacking, cost = Memo(memo_folder()), 0, 0.0
    tables = [DATA / i.output for i in plan.of("generate") if (DATA / i.output).is_dir()]
    for scan in (Scan(RESPONSES, (folder,)) for folder in tables):
        rows = [row for row in scan.pylist(["request_id", "prompt_id", "cost_usd"]) if row["prompt_id"] not in prompts]
        known = memo.get([row["request_id"] for row in rows]).keys()
        gone = [row for row in rows if row["request_id"] not in known]
        lacking, cost = lacking + len(gone), cost + sum(row["cost_usd"] or 0 for row in gone)
    return lacking, cost
