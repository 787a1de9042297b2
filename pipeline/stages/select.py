"""Select: every answer kept or not, weighted, with a reason.  Reads responses and their scores, writes a selection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipeline.contracts import GAPS, RESPONSES, SELECTIONS
from pipeline.core import graph
from pipeline.core.methods import Use
from pipeline.core.run import How
from pipeline.core.stage import Input, Plan, StageParams, gate_of, scores_of, stage
from pipeline.errors import Refused
from pipeline.kinds.selector import Budget, Candidates, Decision, Selector, expressions
from pipeline.tables import ids, mapped
from pipeline.tables import rules as tables_rules
from pipeline.tables import vectors as vectors_of
from pipeline.tables.parquet import Scan

# Rows that are given together.
BATCH = 50_000
# Why a row is no candidate; of one that is, a selector says why it was kept or not.
SHUT = ("", "where", "truncated", "failed", "other_entry")
# Training on a token takes so many operations for every parameter: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1.
FLOPS = 6
# Vectors that are looked at to say how different the kept ones are.
LOOKED_AT = 4096


class Params(StageParams):
    of: str
    entries: tuple[str, ...] | None = Field(default=None, alias="from", min_length=1)
    where: str = "true"
    use: Use[Selector]
    budget_tokens: PositiveInt | None = None
    budget_rows: PositiveInt | None = None
    budget_flops: PositiveFloat | None = None
    parameters: PositiveInt | None = None
    tokens: str = "completion_tokens"
    order: str | None = None
    one_per_prompt: bool = True
    allow_truncated: bool = False
    seed: int

    @model_validator(mode="after")
    def _one_budget(self) -> Params:
        if len(self.budget()) > 1:
            raise ValueError(f"takes one budget, not {' and '.join(f'budget_{unit}' for unit in self.budget())}")
        if (self.budget_flops is None) != (self.parameters is None):
            raise ValueError("budget_flops and parameters, the number of those of the student, go together")
        return self

    def inputs(self) -> dict[str, Input]:
        return {
            "responses": Input(self.of, RESPONSES),
            "scores": scores_of(self.of),
            "gates": gate_of(self.of),
            "gaps": Input("gaps", GAPS, optional=True),
        }

    def output(self, instance: str) -> str:
        return f"selections/{self.of}/{instance}"

    def budget(self) -> dict[str, int]:
        flops = None if self.budget_flops is None else int(self.budget_flops)
        units = {"rows": self.budget_rows, "tokens": self.budget_tokens, "flops": flops}
        return {unit: most for unit, most in units.items() if most is not None}

    def allowed(self) -> Budget:
        """The budget in rows or in tokens; of operations in the tokens that can be read, the prompt's among them."""
        tokens = self.budget_tokens
        if self.budget_flops is not None and self.parameters is not None:
            tokens = int(self.budget_flops // (FLOPS * self.parameters))
        return Budget(self.budget_rows, tokens, self.one_per_prompt)

    def cost(self) -> str:
        """What an answer takes of a budget of tokens or operations, over scores_wide."""
        return self.tokens if self.budget_flops is None else f"prompt_tokens + ({self.tokens}\n)"

    def arguments(self, marker: str) -> dict[str, str]:
        """The selector's arguments of one of the types of `kinds/selector.py`: name -> text."""
        return expressions(self.use.method, self.use.arguments, marker)

    def check(self, plan: Plan) -> list[str]:
        there = graph.entries_of(plan, self.of)
        faults = [
            f"from: no entry {entry!r} of generate answers {self.of}; there are {', '.join(there)}"
            for entry in self.entries or ()
            if entry not in there
        ]
        tables = [i.name for i in plan.of("gaps")]
        faults += [
            f"{name}: no gaps entry is called {table!r}; there are {', '.join(tables) or 'none'}"
            for name, table in self.arguments("gaps").items()
            if table not in tables
        ]
        rules = {"where": (self.where, "condition"), "tokens": (self.tokens, "number")}
        if self.order is not None:
            rules["order"] = (self.order, "number")
        for marker in ("number", "text", "vector"):
            rules |= {name: (text, marker) for name, text in self.arguments(marker).items()}
        views = tables_rules.ANSWERS | {GAPS.name}
        return faults + tables_rules.faults(rules, graph.scorers_of(plan, self.of), plan.settings.query, views)


@stage(writes=SELECTIONS, by="table", imports=("duckdb",))
def select(
    params: Params,
    responses: Scan,
    scores: Scan,
    gaps: Scan,
    data: Path,
    name: str,
    out: Path,
    notes: dict,
    how: How,
) -> Iterator[pa.RecordBatch]:
    """Every answer in `of` gets one row; those that may be kept go to the selector as candidates.

    `tokens` counts those of an answer for `budget_tokens`, over scores_wide. As the teacher counts them is as a student
    of the same tokenizer is trained on them; for another it is the score of a reader `form.tokens` with that student.
    `budget_flops` are the operations of an epoch of a student with so many `parameters`, which reads the prompts, too.
    `order` is a number of an answer, such as how hard it is: what is kept is ranked by it, the least first, for a
    training with `pacing`.
    """
    kinds = ("number", "text", "vector", "gaps")
    numbers, texts, vectors, weights = (params.arguments(marker) for marker in kinds)
    stored = {text: vectors_of.stored(scores, text) for text in vectors.values()}
    vectors = {key: text for key, text in vectors.items() if stored[text] is None}
    shown = {key: f"select.{name}.{key}: {getattr(params, key)}" for key in ("where", "tokens", "order")}
    shown |= {f"number:{text}": f"select.{name}.{key}: {text}" for key, text in numbers.items()}
    shown |= {f"text:{text}": f"select.{name}.{key}: {text}" for key, text in texts.items()}
    shown |= {f"vector:{text}": f"select.{name}.{key}: {text}" for key, text in vectors.items()}
    rows = tables_rules.columns(
        [responses, scores, gaps],
        data,
        {
            "prompt_id": "prompt_id",
            "domain": "domain",
            "tokens": f"({params.tokens}\n)::BIGINT",
            "entry": "entry",
            "failed": "error IS NOT NULL OR content IS NULL OR finish_reason NOT IN ('stop', 'length')",
            "truncated": "finish_reason = 'length'",
            "where": f"coalesce(({params.where}\n), false)",
            "order": f"({params.order or 'NULL'}\n)::DOUBLE",
            "cost": f"({params.cost()}\n)::BIGINT",
        }
        | {f"number:{text}": f"({text}\n)::DOUBLE" for text in numbers.values()}
        | {f"text:{text}": f"({text}\n)::VARCHAR" for text in texts.values()}
        | {f"vector:{text}": f"({text}\n)::FLOAT[]" for text in vectors.values()}
        | {
            f"gaps:{table}": f"(SELECT weight FROM gaps WHERE instance = '{table}' AND domain = scores_wide.domain)"
            for table in weights.values()
        },
        shown,
        how.settings.query,
        out,
    )
    shut = np.zeros(len(rows), np.int8)
    for why, mask in enumerate(_shut(params, rows), 1):
        shut[mask.to_numpy()] = why
    able, budget = shut == 0, params.allowed()
    if budget.tokens is not None and (lacking := able & rows["cost"].is_null().to_numpy()).any():
        example = rows["response_id"][int(lacking.argmax())]
        raise Refused(
            f"select.{name}: {lacking.sum()} answers have no count of tokens ({params.cost()}), for "
            f"example {example}. Use budget_rows, or let `where` leave them out."
        )

    def chosen(column: str) -> pa.ChunkedArray:
        return rows[column] if able.all() else rows[column].filter(pa.array(able))

    names = ids.names(rows["response_id"], out, able)
    candidates = Candidates(
        ids=names,
        prompts=ids.names(rows["prompt_id"], out, able),
        domains=_domains(rows["domain"], able),
        tokens=mapped.numbers(rows["cost"], able, out, null=0),
        columns={text: mapped.numbers(rows[f"number:{text}"], able, out) for text in numbers.values()}
        | {text: chosen(f"text:{text}").to_numpy() for text in texts.values()}
        | {text: vectors_of.column(chosen(f"vector:{text}"), text, out) for text in vectors.values()}
        | {text: vectors_of.scores(of, names, out) for text, of in stored.items() if of}
        | {table: mapped.numbers(rows[f"gaps:{table}"], able, out) for table in weights.values()},
    )
    choose = params.use.build()
    decision = held_to(budget, choose(candidates, budget, ids.seed_of(params.seed, "select", name)), candidates)
    for text in stored:
        _tell_difference(text, candidates, decision, notes, how)
    del candidates, names
    rank = None if params.order is None else _ranked(rows, able, decision.kept, f"select.{name}.order")
    end = 0
    for start in range(0, len(rows), BATCH):
        some, here, told = rows.slice(start, BATCH), able[start : start + BATCH], shut[start : start + BATCH]
        mine, end = slice(end, end + int(here.sum())), end + int(here.sum())
        kept, weight, reason = np.zeros(len(some), bool), np.zeros(len(some)), np.array(SHUT, object)[told]
        kept[here], weight[here], reason[here] = (of[mine] for of in (decision.kept, decision.weight, decision.reason))
        yield SELECTIONS.batch(
            response_id=some["response_id"],
            prompt_id=some["prompt_id"],
            domain=some["domain"],
            kept=pa.array(kept),
            weight=pa.array(weight),
            reason=pa.array(reason, pa.string()),
            tokens=some["tokens"].fill_null(0),
            rank=None if rank is None else rank[start : start + BATCH],
        )


def _shut(params: Params, rows: pa.Table) -> Iterator[pa.ChunkedArray]:
    """Which rows may not be kept, for each reason of SHUT; the last one that holds is told."""
    yield pc.invert(rows["where"])
    yield pc.and_(rows["truncated"], not params.allow_truncated)
    yield rows["failed"]
    yield pc.invert(pc.is_in(rows["entry"], pa.array(params.entries or pc.unique(rows["entry"]))))


def _ranked(rows: pa.Table, able: np.ndarray, kept: np.ndarray, key: str) -> pa.Array:
    """The ranks of the kept rows by their numbers, then by their ids; null for all others."""
    place = np.flatnonzero(able)[kept]
    number = rows["order"].take(pa.array(place))
    if number.null_count:
        example = rows["response_id"][int(place[number.is_null().to_numpy().argmax()])]
        raise Refused(f"{key}: {number.null_count} kept answers have no number, for example {example}")
    rank, without = np.zeros(len(rows), np.int64), np.ones(len(rows), bool)
    rank[place[np.argsort(number.to_numpy(), kind="stable")]] = np.arange(len(place))
    without[place] = False
    return pa.array(rank, mask=without)


def _tell_difference(text: str, candidates: Candidates, decision: Decision, notes: dict, how: How) -> None:
    """Say how different the kept answers are by their vectors, beside as many that are drawn by chance."""
    found, draw = {}, ids.generator(0, "vendi", text)
    for what, among in {"kept": np.flatnonzero(decision.kept), "by chance": np.arange(len(candidates))}.items():
        count = min(LOOKED_AT, int(decision.kept.sum()))
        chosen = np.sort(draw.choice(among, min(count, len(among)), replace=False))
        found[what] = round(vectors_of.vendi(candidates[text][chosen]), 2)
    notes.setdefault("vendi", {})[text] = found
    how.say(f"Vendi score by {text}: {found['kept']} of what is kept, {found['by chance']} of as many by chance")


def held_to(budget: Budget, decision: Decision, candidates: Candidates) -> Decision:
    """The decision, if it keeps the budget: a user's own selector may be wrong."""
    spent = budget.cost_of(candidates)[decision.kept].sum()
    if spent > budget.limit:
        raise ValueError(f"the selector kept {spent} of a budget of {budget.limit}")
    prompts = candidates.prompt[decision.kept]
    if budget.one_per_prompt and len(np.unique(prompts)) < len(prompts):
        raise ValueError("the selector kept several answers of one prompt")
    return decision


def _domains(column: pa.ChunkedArray, where: np.ndarray) -> np.ndarray:
    """The texts of a column in the rows of a mask, of which equal ones are one object."""
    found, known, start, end = np.empty(int(where.sum()), object), dict[str, str](), 0, 0
    for chunk in map(pc.dictionary_encode, column.chunks):
        words = np.array([known.setdefault(word, word) for word in chunk.dictionary.to_pylist()], object)
        some = words[chunk.indices.to_numpy()[where[start : start + len(chunk)]]]
        found[end : end + len(some)] = some
        start, end = start + len(chunk), end + len(some)
    return found
