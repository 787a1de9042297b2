"""Gaps: how far the student is behind the teacher in every domain, and the mixture that follows.

Reads responses and their scores, writes gaps.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import model_validator

from pipeline.contracts import GAPS, RESPONSES
from pipeline.core import graph
from pipeline.core.methods import Use
from pipeline.core.run import How
from pipeline.core.stage import Input, Plan, StageParams, scores_of, stage
from pipeline.errors import Refused
from pipeline.kinds.mixture import Domains, Mixture
from pipeline.tables import rules
from pipeline.tables.parquet import Scan

# The 97.5 % point of a normal distribution.
Z = 1.959963984540054


class Params(StageParams):
    """`use` is the mixture: without it DDK's where perplexities were read, and where not `weights.behind`."""

    of: str
    teacher: str
    student: str
    solved: str
    sure: str | None = None
    teacher_nll: str | None = None
    student_nll: str | None = None
    use: Use[Mixture]

    @model_validator(mode="before")
    @classmethod
    def _usual(cls, given: Any) -> Any:
        if isinstance(given, dict) and "use" not in given:
            return {**given, "use": "weights.behind" if given.get("teacher_nll") is None else "weights.ddk"}
        return given

    @model_validator(mode="after")
    def _both_or_neither(self) -> Params:
        if (self.teacher_nll is None) != (self.student_nll is None):
            raise ValueError("takes both teacher_nll and student_nll, or neither")
        if self.teacher_nll is None and "student_ppl" in self.use.method.traits.get("reads", ()):
            raise ValueError(f"{self.use.name} needs perplexities; name the readings teacher_nll and student_nll")
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
        conditions = {"solved": self.solved} | ({"sure": self.sure} if self.sure else {})
        asked = {key: (text, "condition") for key, text in conditions.items()}
        return faults + rules.faults(asked, scorers, plan.settings.query)


@stage(writes=GAPS, by="table", imports=("duckdb",))
def gaps(
    params: Params, responses: Scan, scores: Scan, data: Path, name: str, how: How, out: Path
) -> Iterator[pa.RecordBatch]:
    """One row per domain, over the prompts that both entries answered; `solved` null means that it does not apply."""
    expressions = {
        "prompt": "prompt_id",
        "domain": "domain",
        "entry": "entry",
        "answered": "content IS NOT NULL",
        "solved": params.solved,
        "sure": params.sure or "NULL::BOOLEAN",
        "tokens": "completion_tokens",
    }
    for side, score in (("teacher", params.teacher_nll), ("student", params.student_nll)):
        for what, key in (("nll", "nll_sum"), ("count", "tokens")):
            expressions[f"{side}_{what}"] = f"\"{score}\".quantities['{key}']" if score else "NULL::DOUBLE"
    domains: dict[str, list[dict[str, Any]]] = defaultdict(list)
    shown = {key: f"gaps.{name}.{key}: {expressions[key]}" for key in ("solved", "sure")}
    found = rules.columns([responses, scores], data, expressions, shown, how.settings.query, out)
    for row in found.to_pylist():
        domains[row["domain"]].append(row)
    rows = {domain: _measured(answers, params) for domain, answers in sorted(domains.items())}
    if not any(row["n"] for row in rows.values()):
        raise Refused(f"no prompt of {params.of} was answered by both {params.teacher!r} and {params.student!r}")
    rows = {domain: row for domain, row in rows.items() if row["n"]}
    weights = params.use.build()(_domains(rows, params.teacher))
    yield GAPS.rows(
        {"domain": domain, "weight": weight, **row}
        for (domain, row), weight in zip(rows.items(), weights.tolist(), strict=True)
    )


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
        **_gap(teacher, student),
        "hard_negatives": len({a["prompt"] for a in student if a["sure"] and a["solved"] is False})
        if params.sure
        else None,
        "cost_per_solved": sum(tokens) / len(solved) if solved and None not in tokens else None,
    }


def _solved_share(solved: Iterable[bool | None]) -> float | None:
    known = [s for s in solved if s is not None]
    return sum(known) / len(known) if known else None


def _gap(teacher: list[dict[str, Any]], student: list[dict[str, Any]]) -> dict[str, float | None]:
    """The difference of two pass rates over the same prompts, and its interval; of one prompt there is none.

    Source: Cochran 1977 (Sampling Techniques), chapter 6: a ratio whose units are prompts, as answers to one prompt go
    together.
    """
    found: list[dict[str, list[bool]]] = [defaultdict(list), defaultdict(list)]
    for by_prompt, answers in zip(found, (teacher, student), strict=True):
        for a in answers:
            if a["solved"] is not None:
                by_prompt[a["prompt"]].append(a["solved"])
    if not all(found):
        return {}
    prompts = sorted({*found[0], *found[1]})
    solved, known = (
        np.array([[of(one.get(p, [])) for p in prompts] for one in found], np.float64) for of in (sum, len)
    )
    rate = solved.sum(1) / known.sum(1)
    errors = (solved - rate[:, None] * known) / known.sum(1)[:, None]
    gap, n = float(rate[0] - rate[1]), len(prompts)
    if n == 1:
        return {"gap": gap}
    width = Z * math.sqrt(math.fsum((errors[0] - errors[1]) ** 2) * n / (n - 1))
    return {"gap": gap, "gap_low": gap - width, "gap_high": gap + width}


def _domains(rows: Mapping[str, Mapping[str, Any]], teacher: str) -> Domains:
    """The rows of the table as a mixture sees them."""

    def column(name: str) -> np.ndarray:
        return np.array([row[name] for row in rows.values()], np.float64)

    return Domains(
        teacher=teacher,
        names=np.array(list(rows), object),
        prompts=column("n"),
        teacher_passed=column("teacher_pass"),
        student_passed=column("student_pass"),
        teacher_ppl=column("teacher_ppl"),
        student_ppl=column("student_ppl"),
        cost=column("cost_per_solved"),
    )
