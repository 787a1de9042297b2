"""Gaps: how far the student is behind the teacher in every domain.  Reads responses and their scores, writes gaps."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, NonNegativeFloat, model_validator

from pipeline.contracts import GAPS, RESPONSES
from pipeline.core import graph
from pipeline.core.run import How
from pipeline.core.stage import Input, Plan, StageParams, scores_of, stage
from pipeline.errors import Refused
from pipeline.tables import rules
from pipeline.tables.parquet import Scan


class Params(StageParams):
    of: str
    teacher: str
    student: str
    solved: str
    teacher_nll: str | None = None
    student_nll: str | None = None
    alpha: float = Field(default=0.5, ge=0, le=1)
    previous: dict[str, NonNegativeFloat] | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Params:
        if (self.teacher_nll is None) != (self.student_nll is None):
            raise ValueError("takes both teacher_nll and student_nll, or neither")
        if self.previous is not None and self.teacher_nll is None:
            raise ValueError("previous weights need teacher_nll and student_nll; without them nothing is carried on")
        return self

    def inputs(self) -> dict[str, Input]:
        return {
            "responses": Input(self.of, RESPONSES),
            "scores": scores_of(self.of),
        }

    def output(self, instance: str) -> str:
        return f"gaps/{instance}"

    def check(self, plan: Plan) -> list[str]:
        entries, scorers = graph.entries_of(plan, self.of), graph.scorers_of(plan, self.of)
        named = {"teacher": self.teacher, "student": self.student}
        faults = [
            f"{key}: no entry {entry!r} of generate answers {self.of}; there are {', '.join(entries)}"
            for key, entry in named.items()
            if entry not in entries
        ]
        scores = {"teacher_nll": self.teacher_nll, "student_nll": self.student_nll}
        faults += [
            f"{key}: no score of {self.of} is called {score!r}; there are {', '.join(scorers)}"
            for key, score in scores.items()
            if score is not None and score not in scorers
        ]
        models = {i.name: getattr(i.params, "model", None) for i in plan.of("generate")}
        if self.teacher in models and models[self.teacher] == models.get(self.student):
            others = [entry for entry in entries if models.get(entry) != models[self.teacher]]
            faults.append(
                f"student: {self.student!r} is the model {models[self.teacher]!r}, and so is the teacher: a model has "
                f"no gap to itself. Name an entry of generate with the student's answers; there are "
                f"{', '.join(others) or 'none'}"
            )
        if self.teacher_nll is not None and self.teacher_nll == self.student_nll:
            faults.append(f"student_nll: is {self.student_nll!r}, and so is teacher_nll; name a reading of each model")
        return faults + rules.faults({"solved": (self.solved, "condition")}, scorers, plan.settings.query)


@stage(writes=GAPS, by="table", imports=("duckdb",))
def gaps(params: Params, responses: Scan, scores: Scan, data: Path, name: str, how: How) -> Iterator[pa.RecordBatch]:
    """One row per domain, over the prompts that both entries answered; `solved` null means that it does not apply."""
    expressions = {
        "prompt": "prompt_id",
        "domain": "domain",
        "entry": "entry",
        "answered": "content IS NOT NULL",
        "solved": params.solved,
        "tokens": "completion_tokens",
    }
    for side, score in (("teacher", params.teacher_nll), ("student", params.student_nll)):
        for what, key in (("nll", "nll_sum"), ("count", "tokens")):
            expressions[f"{side}_{what}"] = f"\"{score}\".quantities['{key}']" if score else "NULL::DOUBLE"
    domains: dict[str, list[dict[str, Any]]] = defaultdict(list)
    shown = {"solved": f"gaps.{name}.solved: {params.solved}"}
    found = rules.columns([responses, scores], data, expressions, shown, how.settings.query)
    for row in found.to_pylist():
        domains[row["domain"]].append(row)
    rows = {domain: _measured(answers, params) for domain, answers in sorted(domains.items())}
    if not any(row["n"] for row in rows.values()):
        raise Refused(f"no prompt of {params.of} was answered by both {params.teacher!r} and {params.student!r}")
    rows = {domain: row for domain, row in rows.items() if row["n"]}
    weights = _weights(rows, params)
    yield GAPS.rows({"domain": domain, "weight": weights[domain], **row} for domain, row in rows.items())


def _measured(answers: list[dict[str, Any]], params: Params) -> dict[str, Any]:
    """The columns of one domain but its weight."""
    by_entry = {entry: [a for a in answers if a["entry"] == entry] for entry in (params.teacher, params.student)}
    both = set.intersection(*({a["prompt"] for a in rows if a["answered"]} for rows in by_entry.values()))
    teacher, student = ([a for a in rows if a["prompt"] in both] for rows in by_entry.values())
    read = [a for a in teacher if a["teacher_count"] and a["student_count"]]
    teacher_ppl, student_ppl = (
        # fsum is exact, so that the order of the rows, and with it the number of parts, changes nothing.
        math.exp(math.fsum(a[f"{side}_nll"] for a in read) / math.fsum(a[f"{side}_count"] for a in read))
        if read
        else None
        for side in ("teacher", "student")
    )
    solved = {a["prompt"] for a in teacher if a["solved"]}
    tokens = [a["tokens"] for a in teacher]
    return {
        "n": len(both),
        "teacher_pass": _solved_share(a["solved"] for a in teacher),
        "student_pass": _solved_share(a["solved"] for a in student),
        "teacher_ppl": teacher_ppl,
        "student_ppl": student_ppl,
        "ratio": student_ppl / teacher_ppl if teacher_ppl and student_ppl else None,
        "cost_per_solved": sum(tokens) / len(solved) if solved and None not in tokens else None,
    }


def _solved_share(solved: Iterable[bool | None]) -> float | None:
    known = [s for s in solved if s is not None]
    return sum(known) / len(known) if known else None


def _weights(rows: Mapping[str, Mapping[str, Any]], params: Params) -> dict[str, float]:
    """A weight per domain: of perplexities, where they were read, otherwise of the difference of pass rates."""
    if params.teacher_nll is not None:
        # A domain without a reading counts as one without a gap.
        ratio = np.array([row["ratio"] or 1.0 for row in rows.values()])
        before = None if params.previous is None else np.array([params.previous.get(d, 0.0) for d in rows])
        weights = ddk(ratio, params.alpha, before)
    else:
        behind = [max(0.0, (row["teacher_pass"] or 0.0) - (row["student_pass"] or 0.0)) for row in rows.values()]
        total = math.fsum(behind)
        share = np.array(behind) / total if total else np.full(len(rows), 1 / len(rows))
        weights = params.alpha * share + (1 - params.alpha) / len(rows)
    return dict(zip(rows, weights.tolist(), strict=True))


def ddk(ratio: np.ndarray, alpha: float, previous: np.ndarray | None = None) -> np.ndarray:
    """Domain weights from perplexity ratios student / teacher, [domains].

    Paper: Liu et al. 2024 (DDK). Eq. 2; without `previous` and with alpha 1 it is eq. 1, a softmax of the ratios.
    Differs: without `previous`, too, (1 - alpha) is spread evenly, so no domain falls below (1 - alpha) / domains.
    """
    pull = np.exp(ratio - ratio.max())
    if previous is not None:
        pull = previous * pull
    return alpha * pull / pull.sum() + (1 - alpha) / len(ratio)
