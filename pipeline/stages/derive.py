"""Derive: prompts of a pool, or the answers to them, become prompts of another.  Reads prompts, drops and responses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, PositiveInt, model_validator

from pipeline.contracts import DROPS, PROMPTS, RESPONSES
from pipeline.core import graph
from pipeline.core.methods import Use
from pipeline.core.run import How
from pipeline.core.stage import NAME, Input, Plan, StageParams, stage
from pipeline.errors import Refused
from pipeline.kinds.operator import Child, Operator, Parent, Unreadable
from pipeline.kinds.source import BadRow, GivenRow
from pipeline.kinds.verifier import Verifier, metric_of, name_of, spelled
from pipeline.tables import ids
from pipeline.tables.parquet import Scan
from pipeline.text.intake import Intake, name_groups

SHOWN, KEPT = 3, 20


class Params(StageParams):
    of: str = Field(pattern=NAME)
    pool: str = Field(pattern=NAME)
    against: str = Field(pattern=NAME)
    use: Use[Operator]
    entries: tuple[str, ...] | None = Field(default=None, alias="from", min_length=1)
    which: Literal["all", "right", "wrong"] = "all"
    domains: tuple[str, ...] | None = Field(default=None, min_length=1)
    verifier: Use[Verifier] | None = None
    parts: int = Field(default=1, ge=1, le=graph.MOST_PARTS)
    limit: PositiveInt | None = None
    max_prompt_chars: PositiveInt = 100_000
    seed: int

    def inputs(self) -> dict[str, Input]:
        answered = f"nothing answers the pool {self.of}. Add an entry to generate with `pool: {self.of}`"
        return {
            "prompts": Input(f"prompts/{self.of}", PROMPTS),
            "drops": Input(f"drops/{self.of}", DROPS, missing=f"no curate entry is called {self.of}"),
            "responses": Input(f"responses/{self.of}", RESPONSES, missing=answered),
            "against": Input(f"prompts/{self.against}", PROMPTS),
        }

    def output(self, instance: str) -> str:
        return f"prompts/{self.pool}/{instance}"

    def names(self, kind: str) -> frozenset[str] | None:
        """The verifiers that children may name beside those of their parents."""
        if kind != "verifier":
            return super().names(kind)
        own = [self.verifier.name] if self.verifier else []
        return frozenset([*self.use.method.traits.get("verifiers", ()), *own])

    def parts_of(self, tables: Sequence[Scan]) -> int:
        return self.parts

    @model_validator(mode="after")
    def _of_another_pool(self) -> Params:
        for key, pool in (("pool", self.pool), ("against", self.against)):
            if pool == self.of:
                raise ValueError(f"{key}: is the pool that it reads; name another")
        return self

    def check(self, plan: Plan) -> list[str]:
        choices = {"from": self.entries is not None, "which": self.which != "all"}
        faults = [
            f"{key}: chooses among answers, and {self.use.name} reads prompts; leave it out"
            for key, given in choices.items()
            if given and self.use.method.traits["reads"] == "prompts"
        ]
        there, named = graph.entries_of(plan, f"responses/{self.of}"), self.named_entries()
        faults += [
            f"{key}: no entry {entry!r} of generate answers the pool {self.of}; there are {', '.join(there)}"
            for key, entry in [*(("from", entry) for entry in self.entries or ()), *named.items()]
            if entry not in there
        ]
        faults += [
            f"{key}: {entry} is not among `from`, so none of its answers would be read"
            for key, entry in named.items()
            if entry in there and entry not in (self.entries or there)
        ]
        if len(set(named.values())) < len(named):
            faults.append("student: is the teacher; name another entry of generate")
        return faults + graph.unequal_parts(plan, self.pool, self.parts)

    def named_entries(self) -> dict[str, str]:
        """The operator's arguments that are entries of generate, of the types of `kinds/operator.py`."""
        fields, marks = self.use.method.arguments.model_fields.items(), ("teacher", "student")
        return {name: self.use.arguments[name] for name, f in fields if any(mark in f.metadata for mark in marks)}


@stage(writes=PROMPTS, by="table", finds=("verifier",))
def derive(
    params: Params, prompts: Scan, drops: Scan, responses: Scan, against: Scan, notes: dict, name: str, how: How
) -> Iterator[pa.RecordBatch]:
    """No prompt is made of one that was dropped, nor of one whose group the benchmark has: of an item that is held out
    no variant may be trained on."""
    parents, groups = parents_of(params, prompts, drops, responses, against, notes, name)
    spelt = spelled(params.verifier.name, params.verifier.arguments) if params.verifier else None
    declared = (params.names("verifier") or frozenset()) | {name_of(p.verifier) for p in parents if p.verifier}
    intake = Intake({}, "", spelt, None, params.max_prompt_chars, on_repeat="first")
    labels = dict(zip(*(prompts.read(["prompt_id", "elicitation"])[c].to_pylist() for c in (0, 1)), strict=True))
    made: list[dict[str, Any]] = []
    unreadable: list[BadRow] = []
    for child in params.use.build()(parents, params.seed):
        source = f"derive.{name} of {(child.parent if isinstance(child, Unreadable) else child.parents[0]).id}"
        if isinstance(child, Unreadable):
            unreadable.append(BadRow(source, child.why))
            continue
        row = intake.read(GivenRow(source, _columns(child, groups)))
        if isinstance(row, BadRow):
            unreadable.append(row)
        elif row is not None:
            row |= {"parent_ids": [parent.id for parent in child.parents], "operator": params.use.name}
            label = _label(params.use.method.traits, labels.get(child.parents[0].prompt_id))
            made.append({**row, "elicitation": label})
    undeclared = {name_of(str(row["verifier"])) for row in made if row["verifier"]} - declared
    if undeclared:
        raise ValueError(f"{params.use.name} names the verifier {min(undeclared)}, and declares none of that name")
    _tell(made, unreadable, intake, len(parents), notes, name, how)
    name_groups(made)
    if params.limit is not None:
        made = sorted(made, key=lambda row: ids.draw(params.seed, "limit", row["prompt_id"]))[: params.limit]
    yield PROMPTS.rows(made)


def _label(traits: Mapping[str, Any], asked: str | None) -> str:
    """What the answers to a child bring out: to one that is read from an answer, what that was asked for, unless the
    operator says more."""
    plain = traits["reads"] == "answers" and traits["elicitation"] == "labeling"
    return (asked if plain else None) or traits["elicitation"]


def _columns(child: Child, groups: Mapping[str, str]) -> dict[str, Any]:
    """A child's row: its domain is its first parent's, and its group that of its parents if they share one."""
    shared = {groups[parent.prompt_id] for parent in child.parents}
    return {"domain": child.parents[0].domain, "group": shared.pop() if len(shared) == 1 else None, **child.columns}


def parents_of(
    params: Params, prompts: Scan, drops: Scan, responses: Scan, against: Scan, notes: dict, name: str
) -> tuple[list[Parent], dict[str, str]]:
    """What may be derived from, in the order of the ids, and the group of every prompt."""
    dropped = set(drops.read(["prompt_id"])["prompt_id"].to_pylist())
    held = set(against.read(["group"])["group"].to_pylist())
    columns = ["prompt_id", "messages", "domain", "group", "level", "verifier", "reference", "solution", "inputs"]
    rows = {row["prompt_id"]: row for row in prompts.pylist(columns) if row["prompt_id"] not in dropped}
    ours = {key: row for key, row in rows.items() if row["group"] not in held}
    notes["held_out"] = {"n": len(rows) - len(ours), "of": len(rows)}
    if rows and not ours:
        raise Refused(
            f"derive.{name}: every prompt of {params.of} is of a group that {params.against} has, and nothing is made "
            f"of an item that is held out. Derive from a pool that was split from it."
        )
    unknown = sorted(set(params.domains or ()) - {row["domain"] for row in ours.values()})
    if unknown:
        there = sorted({row["domain"] for row in ours.values()})
        raise Refused(f"derive.{name}.domains: no prompt is of {', '.join(unknown)}; there are {', '.join(there)}")
    ours = {key: row for key, row in ours.items() if params.domains is None or row["domain"] in params.domains}
    if any(row["inputs"] for row in ours.values()):
        raise Refused(f"derive.{name}: prompts of {params.of} are about arrays, and an operator sees words alone")
    groups = {key: row["group"] for key, row in ours.items()}
    if params.use.method.traits["reads"] == "prompts":
        return sorted((_parent(row) for row in ours.values()), key=lambda p: p.id), groups
    return sorted(_answers(params, ours, responses, name), key=lambda p: p.id), groups


def _parent(row: Mapping[str, Any], **answer: Any) -> Parent:
    given = {key: row[key] for key in ("prompt_id", "messages", "domain", "level", "verifier", "reference", "solution")}
    return Parent(**{"id": row["prompt_id"], **given, **answer})


def _answers(params: Params, rows: Mapping[str, Mapping[str, Any]], responses: Scan, name: str) -> Iterator[Parent]:
    """The answers that were finished, of the entries and the kind that are asked for."""
    columns = ["response_id", "prompt_id", "entry", "content", "answer", "finish_reason"]
    found = judged = 0
    for answer in responses.pylist(columns):
        row = rows.get(answer["prompt_id"])
        if (
            row is None
            or answer["finish_reason"] != "stop"
            or answer["entry"] not in (params.entries or (answer["entry"],))
        ):
            continue
        metric = metric_of(row["verifier"], answer["answer"], row["reference"])
        found, judged = found + 1, judged + (metric is not None)
        right = None if metric is None else metric == 1
        if params.which == "all" or right == (params.which == "right"):
            own = {key: answer[key] for key in ("entry", "content", "answer")}
            yield _parent(row, id=answer["response_id"], right=right, **own)
    if found and not judged and params.which != "all":
        raise Refused(
            f"derive.{name}.which: {params.which}: none of {found} answers can be judged; the prompts of {params.of} "
            f"have no verifier or no reference"
        )


def _tell(
    made: list[dict[str, Any]], unreadable: list[BadRow], intake: Intake, parents: int, notes: dict, name: str, how: How
) -> None:
    """Say what could not be used; refuse where nothing could."""
    causes = Counter(row.why for row in unreadable)
    notes |= {"parents": parents, "unreadable": dict(causes.most_common(KEPT)), "repeated": intake.repeated.n}
    said = [f"{count} x {why}" for why, count in causes.most_common(SHOWN)]
    if not made:
        why = f": {'; '.join(said)}" if said else "; there is nothing to derive from" if not parents else ""
        raise Refused(f"derive.{name}: no prompt was made of {parents} parents{why}")
    if unreadable:
        how.say(
            f"{len(unreadable)} of what {parents} parents gave could not be used: {'; '.join(said)}, such as "
            f"{unreadable[0].source}"
        )
    if intake.repeated.n:
        how.say(f"{intake.repeated.n} prompts repeat an earlier one and are left out: {intake.repeated}")
