"""Ingest: the world's data becomes prompts, in a pool.  Writes prompts/<pool>/<name>."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

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
from pipeline.kinds.source import BadRow, Source
from pipeline.kinds.verifier import Verifier, name_of, spelled
from pipeline.tables import ids
from pipeline.tables.parquet import Scan
from pipeline.text.columns import fields_of
from pipeline.text.intake import Intake, Key, name_groups

SHOWN = 5


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


@stage(writes=PROMPTS, by="table", finds=("verifier",))
def ingest(params: Params, notes: dict, name: str, data: Path, how: How) -> Iterator[pa.RecordBatch]:
    """Every row becomes a prompt or is named as bad; none is passed over in silence."""
    verifier = spelled(params.verifier.name, params.verifier.arguments) if params.verifier else None
    intake = Intake(
        params.columns, params.domain or name, verifier, params.system, params.max_prompt_chars,
        params.prompt_template, params.last_turn, params.on_repeat, params.arrays,
    )  # fmt: skip
    good: list[dict] = []
    bad: list[BadRow] = []
    for given in params.use.build():
        read = given if isinstance(given, BadRow) else intake.read(given)
        if isinstance(read, BadRow):
            bad.append(read)
        elif read is not None:
            good.append(read)
    _answer_for(bad, len(good), params, name, notes, data, how)
    if intake.repeated:
        notes["repeated"] = {"n": len(intake.repeated), "of": len(good), "at": intake.repeated[:SHOWN]}
        how.say(f"{len(intake.repeated)} rows repeat an earlier one and are left out: {listed(intake.repeated, SHOWN)}")
    _check_verifiers(good, params, name)
    _tell_of_references(intake, len(good), notes, how)
    name_groups(good)
    if params.split is not None:
        held_out = params.split.take == "held_out"
        good = [row for row in good if (ids.draw(0, "split", row["group"]) < params.split.held_out) == held_out]
    if params.limit is not None:
        good = sorted(good, key=lambda row: ids.draw(0, "limit", row["prompt_id"]))[: params.limit]
    if not good:
        raise Refused(f"ingest.{name}: {params.use.name} gave no prompt; an empty pool is of no use")
    yield PROMPTS.rows([{**row, "elicitation": params.elicitation} for row in good])


def _answer_for(bad: list[BadRow], good: int, params: Params, name: str, notes: dict, data: Path, how: How) -> None:
    """Refuse bad rows, or put them where the user can look at them, and say so."""
    file = data / ".quarantine" / f"{name}.jsonl"
    file.unlink(missing_ok=True)
    if not bad:
        return
    causes: dict[str, list[str]] = {}
    for row in bad:
        causes.setdefault(row.why, []).append(row.source)
    rows = len(bad) + good
    too_many = len(bad) > params.max_bad_share * rows
    if params.on_bad_row == "fail" or too_many:
        lines = [f"  - {len(places)} x {why}: {listed(places, SHOWN)}" for why, places in list(causes.items())[:SHOWN]]
        if len(causes) > SHOWN:
            lines.append(f"  - and {len(causes) - SHOWN} other causes")
        mend = "write `on_bad_row: quarantine` to go on without them"
        if params.on_bad_row == "quarantine":
            mend = f"raise `max_bad_share: {params.max_bad_share:g}` if it is right that so many are"
        raise Refused(
            f"ingest.{name}: {len(bad)} of {rows} rows cannot be used:\n"
            + "\n".join(lines)
            + f"\nMend them, or {mend}."
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = (json.dumps({"source": row.source, "why": row.why, "raw": row.raw}) for row in bad)
    file.write_text("\n".join(kept) + "\n", "utf-8")
    notes["quarantined"] = {why: len(places) for why, places in causes.items()}
    notes["set_aside"] = {"n": len(bad), "of": rows, "at": [f"{row.source}: {row.why}" for row in bad[:SHOWN]]}
    how.say(f"{len(bad)} of {rows} rows cannot be used and are set aside in {file}: {listed(list(causes), SHOWN)}")


def _tell_of_references(intake: Intake, rows: int, notes: dict, how: How) -> None:
    """Say what a user should look at: references that are kept in another form, and a verifier that finds solutions
    wrong, which is the wrong one, or the solutions are."""
    if intake.rewritten:
        notes["references_rewritten"] = {"n": len(intake.rewritten), "of": rows, "at": intake.rewritten[:SHOWN]}
        how.say(
            f"{len(intake.rewritten)} of {rows} references are kept as their verifier reads them: "
            f"{listed(intake.rewritten, SHOWN)}"
        )
    wrong = [place for place, right in intake.judged.items() if not right]
    if intake.judged:
        notes["solutions_judged_wrong"] = {"n": len(wrong), "of": len(intake.judged), "at": wrong[:SHOWN]}
    if wrong:
        how.say(
            f"{len(wrong)} of {len(intake.judged)} solutions ({len(wrong) / len(intake.judged):.1%}) are not right by "
            f"their own verifier and reference: {listed(wrong, SHOWN)}. Look at them: what finds a right solution "
            f"wrong will find right answers wrong"
        )


def _check_verifiers(rows: list[dict], params: Params, name: str) -> None:
    """What a source declares decides whose code is part of the identity of all that is made of its rows."""
    declared = params.names("verifier")
    undeclared = sorted({name_of(row["verifier"]) for row in rows if row["verifier"]} - (declared or set()))
    if declared is not None and undeclared:
        raise Refused(
            f"ingest.{name}: {params.use.name} gave rows with the verifier {', '.join(undeclared)}, which it does not "
            f"declare. Name it in `@source(verifiers=...)`, or declare none, so that rows may name any."
        )
