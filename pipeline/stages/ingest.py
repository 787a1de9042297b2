"""Ingest: the world's data becomes prompts, in a pool.  Writes prompts/<pool>/<name>."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from pipeline.contracts import PROMPTS
from pipeline.core import graph
from pipeline.core.methods import Use
from pipeline.core.run import How
from pipeline.core.stage import NAME, Input, Plan, WatchedParams, stage
from pipeline.display import listed
from pipeline.errors import Refused
from pipeline.kinds.operator import Elicitation
from pipeline.kinds.source import BadRow, Rows, Source
from pipeline.kinds.verifier import Verifier, name_of, spelled
from pipeline.tables import ids
from pipeline.tables.parquet import Scan, batched
from pipeline.tables.sorting import in_order
from pipeline.text.columns import fields_of
from pipeline.text.intake import PLACES, Intake, Key, Places, name_groups

# Rows that are dictionaries together; what decides which of them stay, while they are put in its order.
BATCH, DRAW = 512, "#draw"


class Split(BaseModel):
    """A share of the groups to be held out; an item and its variants are never on both sides."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    held_out: Annotated[float, Field(gt=0, lt=1)]
    take: Literal["train", "held_out"]


def _or_with_parameters(schema: dict[str, Any]) -> None:
    schema["anyOf"].append({"type": "object", "required": ["use"]})


class Params(WatchedParams):
    pool: str = Field(pattern=NAME)
    use: Use[Source]
    licence: str | None = None
    elicitation: Elicitation = "labeling"
    parts: int = Field(default=1, ge=1, le=graph.MOST_PARTS)
    columns: dict[Key, str] = Field(default={})
    arrays: dict[str, str] = Field(default={})
    prompt_template: str | None = None
    last_turn: Literal["solution", "reference"] = "solution"
    domain: str | None = None
    # By name alone, or with parameters: `{use: text.choice, choices: 4}`.
    verifier: Use[Verifier] | None = Field(default=None, json_schema_extra=_or_with_parameters)
    system: str | None = None
    split: Split | None = None
    limit: PositiveInt | None = None
    max_prompt_chars: PositiveInt = 100_000
    on_bad_row: Literal["fail", "quarantine"] = "fail"
    max_bad_share: float = Field(default=0.1, ge=0, le=1)
    on_repeat: Literal["refuse", "first"] = "refuse"

    @field_validator("prompt_template")
    @classmethod
    def _names_columns(cls, template: str | None) -> str | None:
        if template is not None and not fields_of(template):
            raise ValueError("names no column; write `{question}` where the column `question` belongs")
        return template

    def inputs(self) -> dict[str, Input]:
        return {}

    def output(self, instance: str) -> str:
        return f"prompts/{self.pool}/{instance}"

    def names(self, kind: str) -> frozenset[str] | None:
        if kind != "verifier":
            return super().names(kind)
        declared = self.use.method.traits.get("verifiers")
        if declared is None or "verifier" in self.columns:
            return None
        return frozenset(declared) | ({self.verifier.name} if self.verifier else set())

    def parts_of(self, tables: Sequence[Scan]) -> int:
        return self.parts

    def check(self, plan: Plan) -> list[str]:
        return super().check(plan) + graph.unequal_parts(plan, self.pool, self.parts)


class Bad:
    """Rows that cannot be used: how many, where they stand by their cause, and all of them as lines of a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.all, self.causes = file, Places(), dict[str, Places]()

    def add(self, row: BadRow) -> None:
        self.all.add(f"{row.source}: {row.why}")
        self.causes.setdefault(row.why, Places()).add(row.source)
        told = json.dumps({"source": row.source, "why": row.why, "raw": row.raw})
        self.file.write(told.encode() + b"\n")

    def keep(self, file: Path) -> None:
        """Put the lines where a user can look at them."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self.file.seek(0)
        with file.open("wb") as kept:
            shutil.copyfileobj(self.file, kept)


@stage(writes=PROMPTS, by="table", finds=("verifier",))
def ingest(params: Params, notes: dict, name: str, data: Path, out: Path, how: How) -> Iterator[pa.RecordBatch]:
    """Every row becomes a prompt or is named as bad; none is passed over in silence."""
    verifier = spelled(params.verifier.name, params.verifier.arguments) if params.verifier else None
    with tempfile.TemporaryFile(dir=out) as seen, tempfile.TemporaryFile(dir=out) as lines:
        bad, verifiers, good, kept = Bad(lines), set[str](), 0, 0
        intake = Intake(
            params.columns, params.domain or name, verifier, params.system, params.max_prompt_chars,
            params.prompt_template, params.last_turn, params.on_repeat, params.arrays, seen,
        )  # fmt: skip

        def prompts() -> Iterator[pa.RecordBatch]:
            nonlocal good
            for rows in batched(_good(iter(params.use.build()), intake, bad), BATCH):
                good += len(rows)
                verifiers.update(row["verifier"] for row in rows if row["verifier"])
                name_groups(rows)
                yield PROMPTS.rows({**row, "elicitation": params.elicitation} for row in rows)

        # What is wrong with rows is told when all are read; until then they are nobody's.
        for rows in _limited(_side(prompts(), params.split), params.limit, out):
            kept += len(rows)
            yield rows
        _answer_for(bad, good, params, name, notes, data, how)
    if intake.repeated.n:
        notes["repeated"] = intake.repeated.note(good)
        how.say(f"{intake.repeated.n} rows repeat an earlier one and are left out: {intake.repeated}")
    _check_verifiers(verifiers, params, name)
    _tell_of_references(intake, good, notes, how)
    if not kept:
        raise Refused(f"ingest.{name}: {params.use.name} gave no prompt; an empty pool is of no use")


def _good(given: Rows, intake: Intake, bad: Bad) -> Iterator[dict[str, Any]]:
    for row in given:
        read = row if isinstance(row, BadRow) else intake.read(row)
        if isinstance(read, BadRow):
            bad.add(read)
        elif read is not None:
            yield read


def _side(batches: Iterable[pa.RecordBatch], split: Split | None) -> Iterator[pa.RecordBatch]:
    """The rows whose groups are on the side that is taken."""
    for rows in batches:
        if split is not None:
            held_out = ids.draws(0, "split", rows["group"].to_pylist()) < split.held_out
            rows = rows.filter(pa.array(held_out == (split.take == "held_out")))
        yield rows


def _limited(batches: Iterable[pa.RecordBatch], limit: int | None, out: Path) -> Iterator[pa.RecordBatch]:
    """So many rows, drawn by their ids."""
    if limit is None:
        yield from batches
        return
    drawn = (r.append_column(DRAW, pa.array(ids.draws(0, "limit", r["prompt_id"].to_pylist()))) for r in batches)
    for rows in in_order(drawn, [DRAW], out):
        yield from rows.slice(0, limit).drop_columns(DRAW).to_batches()
        limit = max(0, limit - len(rows))


def _answer_for(bad: Bad, good: int, params: Params, name: str, notes: dict, data: Path, how: How) -> None:
    """Refuse bad rows, or put them where the user can look at them, and say so."""
    file = data / ".quarantine" / f"{name}.jsonl"
    file.unlink(missing_ok=True)
    count = bad.all.n
    if not count:
        return
    rows = count + good
    too_many = count > params.max_bad_share * rows
    if params.on_bad_row == "fail" or too_many:
        lines = [f"  - {places.n} x {why}: {places}" for why, places in list(bad.causes.items())[:PLACES]]
        if len(bad.causes) > PLACES:
            lines.append(f"  - and {len(bad.causes) - PLACES} other causes")
        mend = "write `on_bad_row: quarantine` to go on without them"
        if params.on_bad_row == "quarantine":
            mend = f"raise `max_bad_share: {params.max_bad_share:g}` if it is right that so many are"
        raise Refused(
            f"ingest.{name}: {count} of {rows} rows cannot be used:\n" + "\n".join(lines) + f"\nMend them, or {mend}."
        )
    bad.keep(file)
    notes["quarantined"] = {why: places.n for why, places in bad.causes.items()}
    notes["set_aside"] = bad.all.note(rows)
    how.say(f"{count} of {rows} rows cannot be used and are set aside in {file}: {listed(list(bad.causes), PLACES)}")


def _tell_of_references(intake: Intake, rows: int, notes: dict, how: How) -> None:
    """Say what a user should look at: references that are kept in another form, and a verifier that finds solutions
    wrong, which is the wrong one, or the solutions are."""
    wrong, judged = intake.wrong, intake.judged
    if intake.rewritten.n:
        notes["references_rewritten"] = intake.rewritten.note(rows)
        how.say(f"{intake.rewritten.n} of {rows} references are kept as their verifier reads them: {intake.rewritten}")
    if judged:
        notes["solutions_judged_wrong"] = wrong.note(judged)
    if wrong.n:
        how.say(
            f"{wrong.n} of {judged} solutions ({wrong.n / judged:.1%}) are not right by their own verifier and "
            f"reference: {wrong}. Look at them: what finds a right solution wrong will find right answers wrong"
        )


def _check_verifiers(verifiers: Set[str], params: Params, name: str) -> None:
    """What a source declares decides whose code is part of the identity of all that is made of its rows."""
    declared = params.names("verifier")
    undeclared = sorted(set(map(name_of, verifiers)) - (declared or set()))
    if declared is not None and undeclared:
        raise Refused(
            f"ingest.{name}: {params.use.name} gave rows with the verifier {', '.join(undeclared)}, which it does not "
            f"declare. Name it in `@source(verifiers=...)`, or declare none, so that rows may name any."
        )
