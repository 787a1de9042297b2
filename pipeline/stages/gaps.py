"""Gaps: how far the student is behind the teacher in every domain, and the mixture that follows.

Reads responses and their scores, writes gaps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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


def _figures() -> dict[str, str]:
    """What is counted of a prompt's answers, over the columns that `gaps` asks for."""
    found = {"both": "bool_or(answered AND side = 'teacher') AND bool_or(answered AND side = 'student')"}
    for side in ("teacher", "student"):
        found[f"{side}_solved"] = f"count(*) FILTER (side = '{side}' AND solved)"
        found[f"{side}_known"] = f"count(solved) FILTER (side = '{side}')"
        for what in ("nll", "count"):
            read = "side = 'teacher' AND teacher_count > 0 AND student_count > 0"
            found[f"{side}_{what}"] = f"coalesce(list({side}_{what}) FILTER ({read}), [])"
    return found | {
        "teacher_solves": "coalesce(bool_or(side = 'teacher' AND solved), false)::INTEGER",
        "surely_wrong": "coalesce(bool_or(side = 'student' AND sure AND NOT solved), false)::INTEGER",
        "tokens": "coalesce(sum(tokens) FILTER (side = 'teacher'), 0)::BIGINT",
        "uncounted": "count(*) FILTER (side = 'teacher' AND tokens IS NULL)",
    }


FIGURES = _figures()


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
    sides = {"teacher": params.teacher, "student": params.student}
    expressions = {
        "prompt": "prompt_id",
        "domain": "domain",
        "side": "CASE entry " + " ".join(f"WHEN '{entry}' THEN '{side}'" for side, entry in sides.items()) + " END",
        "answered": "content IS NOT NULL",
        "solved": params.solved,
        "sure": params.sure or "NULL::BOOLEAN",
        "tokens": "completion_tokens",
    }
    for side, score in (("teacher", params.teacher_nll), ("student", params.student_nll)):
        for what, key in (("nll", "nll_sum"), ("count", "tokens")):
            expressions[f"{side}_{what}"] = f"\"{score}\".quantities['{key}']" if score else "NULL::DOUBLE"
    shown = {key: f"gaps.{name}.{key}: {expressions[key]}" for key in ("solved", "sure")}
    grouped = (("domain", "prompt"), FIGURES)
    found = rules.columns([responses, scores], data, expressions, shown, how.settings.query, out, grouped)
    rows = {domain: _measured(prompts, params) for domain, prompts in _by_domain(found)}
    if not rows:
        raise Refused(f"no prompt of {params.of} was answered by both {params.teacher!r} and {params.student!r}")
    weights = params.use.build()(_domains(rows, params.teacher))
    yield GAPS.rows(
        {"domain": domain, "weight": weight, **row}
        for (domain, row), weight in zip(rows.items(), weights.tolist(), strict=True)
    )


def _by_domain(found: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Every domain that has prompts which both answered, with these prompts; `found` is in the order of domains."""
    start = 0
    for domain, count in (counted.values() for counted in pc.value_counts(found["domain"]).to_pylist()):
        both = found.slice(start, count).filter(pc.field("both"))
        start += count
        if len(both):
            yield domain, both


def _measured(prompts: pa.Table, params: Params) -> dict[str, Any]:
    """The columns of one domain but its weight."""

    def total(figure: str) -> int:
        return int(pc.sum(prompts[figure], min_count=0).as_py())

    # fsum is exact, so that the order of the rows, and with it the number of parts, changes nothing.
    teacher_ppl, student_ppl = (
        math.exp(math.fsum(_each(prompts[f"{side}_nll"])) / count)
        if (count := math.fsum(_each(prompts[f"{side}_count"])))
        else None
        for side in ("teacher", "student")
    )
    solved = total("teacher_solves")
    return {
        "n": len(prompts),
        "teacher_pass": _share(total("teacher_solved"), total("teacher_known")),
        "student_pass": _share(total("student_solved"), total("student_known")),
        "teacher_ppl": teacher_ppl,
        "student_ppl": student_ppl,
        "ratio": student_ppl / teacher_ppl if teacher_ppl and student_ppl else None,
        **_gap(prompts),
        "hard_negatives": total("surely_wrong") if params.sure else None,
        "cost_per_solved": total("tokens") / solved if solved and not total("uncounted") else None,
    }


def _each(lists: pa.ChunkedArray) -> Iterator[float]:
    """The numbers in a column of lists, chunk by chunk."""
    return chain.from_iterable(pc.list_flatten(chunk).to_numpy() for chunk in lists.chunks)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _gap(prompts: pa.Table) -> dict[str, float | None]:
    """The difference of two pass rates over the same prompts, and its interval; of one prompt there is none.

    Source: Cochran 1977 (Sampling Techniques), chapter 6: a ratio whose units are prompts, as answers to one prompt go
    together.
    """
    solved, known = (
        np.array([prompts[f"{side}_{what}"].to_numpy() for side in ("teacher", "student")], np.float64)
        for what in ("solved", "known")
    )
    # A prompt of which neither says anything counts in no unit.
    solved, known = solved[:, known.any(0)], known[:, known.any(0)]
    if not known.any(1).all():
        return {}
    rate = solved.sum(1) / known.sum(1)
    errors = (solved - rate[:, None] * known) / known.sum(1)[:, None]
    gap, n = float(rate[0] - rate[1]), solved.shape[1]
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
