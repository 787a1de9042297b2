"""A row as a person reads it: the conversation, the answers, what was thought of them, and what became of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core.graph import inside
from pipeline.core.settings import RunSettings
from pipeline.errors import Refused
from pipeline.kinds.backend import Tokens
from pipeline.report.arms import Lineage
from pipeline.tables.labels import Labels, labels_of
from pipeline.tables.pictures import data_url, files, thumbnail
from pipeline.viewing import lineage as told
from pipeline.viewing import tokens
from pipeline.viewing.tables import Tables, literal
from pipeline.viewing.tokens import Line, Token

Row = Mapping[str, Any]
# Of an answer of whose siblings there are many, as many are shown.
MOST = 200


@dataclass(frozen=True)
class Trained:
    """An example that was made of the answer: its tokens, which of them are learnt, and what models say of those.

    `unasked` are the models that learnt from it, and those that they began as, of which nothing is known yet; `why`
    says what cannot be shown.
    """

    row: Row
    models: Sequence[str]
    tokens: Sequence[Token] = ()
    learnt: Sequence[bool] = ()
    lines: Sequence[Line] = ()
    unasked: Mapping[str, Path] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Gate:
    """A table that was checked, whether it may be used, and the expectations that were not met."""

    of: str
    label: str
    failed: Sequence[Row]


@dataclass(frozen=True)
class Shown:
    """All that a page tells of one row; `row` is the answer that it is about, None for a prompt. `pictures` are those
    that the prompt shows, small, as addresses that hold them."""

    story: Mapping[str, Any]
    row: Row | None
    answers: Sequence[Row]
    scores: Mapping[str, Sequence[Row]]
    decisions: Mapping[str, Sequence[Row]]
    trained: Sequence[Trained]
    own: Line | None
    gates: Sequence[Gate]
    labels: Labels
    pictures: Sequence[str] = ()


def shown(tables: Tables, lineage: Lineage, key: str, memo: Path) -> Shown:
    """What is known of the row with this id."""
    story = told.row(lineage, tables.data, tables.ask, key)
    prompts = ", ".join(literal(p) for p in {r["prompt_id"] for r in (*story["prompts"], *story["responses"])})
    of_prompt = f"WHERE prompt_id IN ({prompts or 'NULL'})"
    answers = tables.rows(
        f"SELECT response_id, entry, sample, answer, finish_reason, error, left(content, 300) AS content, instance, of "
        f"FROM responses {of_prompt} ORDER BY entry, sample, response_id LIMIT {MOST}"
    )
    ids = [a["response_id"] for a in story["responses"]] if story["what"] != "prompts" else []
    row = tables.rows(f"SELECT * FROM responses WHERE response_id = {literal(ids[0])}")[0] if ids else None
    scored = tables.rows(
        f"SELECT response_id, score, quantities, detail, instance, of FROM scores {of_prompt} ORDER BY instance"
    )
    decided = tables.rows(
        f"SELECT response_id, kept, weight, reason, rank, instance, of FROM selections {of_prompt} ORDER BY instance"
    )
    folders = [f"responses/{row['of']}/{row['instance']}"] if row else []
    folders += [f"examples/{e['instance']}" for e in story["examples"]]
    return Shown(
        story=story,
        row=row,
        answers=answers,
        scores=_by_answer([{**s, **_formula(lineage, s)} for s in scored]),
        decisions=_by_answer([{**d, "rule": _rule(lineage, d)} for d in decided]),
        trained=[_trained(tables, lineage, example, memo) for example in story["examples"]] if row else [],
        own=_own(lineage, tables.data, row) if row else None,
        gates=_gates(lineage, tables.data, folders),
        labels=labels_of(tables.data),
        pictures=_pictures(tables.rows(f"SELECT inputs FROM prompts {of_prompt} LIMIT 1")),
    )


def read(found: Shown, settings: RunSettings, root: Path) -> None:
    """Ask the students of an answer, before and after, what they say of its tokens."""
    for one in found.trained:
        if one.unasked:
            tokens.read(one.unasked, _asked(one.row), settings, root)


def _pictures(prompts: Sequence[Row]) -> list[str]:
    """What a prompt shows, but for arrays that are no pictures."""
    found: list[str] = []
    for entry in (entry for prompt in prompts for entry in prompt["inputs"] or ()):
        with suppress(Refused):
            found += [data_url(thumbnail(file)) for file in files([entry])]
    return found


def _by_answer(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["response_id"], []).append(row)
    return found


def _formula(lineage: Lineage, score: Row) -> dict[str, Any]:
    """By which method a score was made, and how from its quantities."""
    plan = lineage.plans.get(f"scores/{score['of']}/{score['instance']}", {})
    for kind in ("scorer", "rule", "reader", "judge"):
        for method, traits in plan.get("traits", {}).get(kind, {}).items():
            return {"method": method, "formula": traits.get("score")}
    return {"method": None, "formula": None}


def _rule(lineage: Lineage, decision: Row) -> Mapping[str, Any]:
    """By what a selection chose."""
    return lineage.plans.get(f"selections/{decision['of']}/{decision['instance']}", {}).get("params", {})


def _gates(lineage: Lineage, data: Path, folders: Sequence[str]) -> list[Gate]:
    """The checks of the tables that the row lies in."""
    found = []
    for plan in lineage.of("quality"):
        of, verdict = plan["params"]["of"], data / plan["output"] / "verdict.json"
        if verdict.exists() and any(inside(folder, of) for folder in folders):
            expectations = json.loads(verdict.read_text("utf-8"))["expectations"]
            found.append(Gate(of, f"gate@{plan['instance']}", [e for e in expectations if not e["success"]]))
    return found


def _own(lineage: Lineage, data: Path, row: Row) -> Line | None:
    """The answer's own tokens, as the model that gave it found them likely; none if it did not say."""
    plan = lineage.plans.get(f"responses/{row['of']}/{row['instance']}", {})
    model = plan.get("params", {}).get("model", "")
    if not row["token_ids"] or not row["logprobs"] or not tokens.readable(data / "models" / model):
        return None
    spelt = tokens.texts(data / "models" / model / "tokenizer", row["token_ids"])
    return tokens.line(model, "who answered, before temperature", spelt, row["logprobs"])


def _trained(tables: Tables, lineage: Lineage, example: Row, memo: Path) -> Trained:
    key, instance = literal(example["example_id"]), literal(example["instance"])
    [row] = tables.rows(f"SELECT * FROM examples WHERE example_id = {key} AND instance = {instance}")
    arms = [arm for arm in lineage.arms.values() if f"examples/{row['instance']}" in arm.examples]
    names = sorted(arm.model for arm in arms)
    pack = lineage.plans.get(f"examples/{row['instance']}", {})
    models = tables.data / "models"
    form = models / pack.get("params", {}).get("student", "") / "tokenizer"
    if not tokens.readable(form.parent):
        why = "its places are no tokens of a language model that is here, so they are not shown one by one"
        return Trained(row, names, why=why)
    spelt, asked = tokens.texts(form, row["token_ids"]), _asked(row)
    learnt = [spelt[place] for place in asked.positions]
    lines = [
        tokens.line(s["instance"], "teacher", learnt, s["target_logprob"])
        for s in tables.rows(
            f"SELECT instance, target_logprob FROM signals WHERE example_id = {key} AND of = {instance} "
            f"ORDER BY instance"
        )
        if len(s["target_logprob"]) == len(learnt)
    ]
    roles = {arm.base: "student before" for arm in arms} | {arm.model: "student after" for arm in arms}
    readable = {name: models / name for name in sorted(roles, key=lambda n: (roles[n] != "student before", n))
                if tokens.readable(models / name)}  # fmt: skip
    known = tokens.known(readable, asked, memo)
    lines += [tokens.line(name, roles[name], learnt, known[name]) for name in readable if name in known]
    absent = ", ".join(name for name in sorted(roles) if name not in readable)
    return Trained(
        row, names, [Token(text) for text in spelt],
        [place in set(asked.positions) for place in range(len(spelt))], lines,
        {name: folder for name, folder in readable.items() if name not in known},
        f"not here, or no language model: {absent}" if absent else "",
    )  # fmt: skip


def _asked(row: Row) -> Tokens:
    """What is asked of a model that reads an example, as `probe` asks it."""
    places = [place for span in row["spans"] for place in range(span["start"], span["end"])]
    return Tokens(row["example_id"], row["token_ids"], places, row["inputs"], row["prompt_id"])
