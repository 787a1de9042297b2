"""The methods' taxonomy: how what was trained on was brought out of a model, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.report.arms import Lineage, trait
from pipeline.report.facts import records
from pipeline.report.results import Answered
from pipeline.report.tables import Tables

# Of the survey of Xu et al. 2024 (arXiv 2402.13116), section 3.
LABELS = ("labeling", "expansion", "curation", "feature", "feedback", "self-knowledge")


@dataclass
class Elicited:
    """A label: the prompts, answers and tokens that it stands for, what was kept of them and how much of that is right
    by a verifier, and the students that were trained on it, each against its control."""

    label: str
    prompts: int = 0
    answers: int = 0
    tokens: int = 0
    cost_usd: float | None = None
    kept: int = 0
    known: int = 0
    right: int = 0
    students: list[Answered] = field(default_factory=list)

    @property
    def precision(self) -> float | None:
        return self.right / self.known if self.known else None


def elicited(lineage: Lineage, tables: Tables, data: Path, answers: Sequence[Answered]) -> list[Elicited]:
    """All six labels, also those that nothing stands for.

    An answer is self-knowledge where a student is trained on it that begins as the model that gave it; features are the
    rows that a teacher's distribution was read for.
    """
    found = {label: Elicited(label) for label in LABELS}
    asked = {p["instance"]: p for p in lineage.of("generate")}
    for plan in asked.values():
        source, prompts = tables.source(plan["output"]), tables.source(f"prompts/{plan['params']['pool']}")
        if source is None or prompts is None:
            continue
        own = _own(lineage, plan["instance"], plan["params"]["model"])
        rows = tables.rows(
            f"SELECT {_label(own)}, count(DISTINCT prompt_id), count(*), coalesce(sum(completion_tokens), 0), "
            f"sum(cost_usd) FROM {source} r LEFT JOIN {prompts} p USING (prompt_id) GROUP BY 1"
        )
        for label, n, count, tokens, dollars in rows:
            one = found[label]
            one.prompts, one.answers, one.tokens = one.prompts + n, one.answers + count, one.tokens + int(tokens)
            one.cost_usd = one.cost_usd if dollars is None else (one.cost_usd or 0.0) + dollars
    chosen: dict[str, set[str]] = {}
    for folder in tables.under("selections"):
        of = folder.removeprefix("selections/").rpartition("/")[0]
        for label in _kept(lineage, tables, folder, of, found):
            chosen.setdefault(folder, set()).add(label)
    for plan, record in records(lineage, data):
        if plan["stage"] == "probe":
            found["feature"].kept += record["rows"] or 0
            chosen.setdefault(plan["output"], set()).add("feature")
    for a in answers:
        arm = lineage.arms.get(a.comparison.first.members[0].model)
        if arm is not None and a.comparison.kind == "control":
            own_rows = lineage.plans[f"models/{arm.model}"]["inputs"]["rows"]
            for label in {label for name in (*arm.selections, *own_rows) for label in chosen.get(name, ())}:
                found[label].students.append(a)
    return list(found.values())


def _own(lineage: Lineage, entry: str, model: str) -> bool:
    """Whether a student that began as this model learns from this entry's answers."""
    return any(arm.base == model and entry in arm.teachers for arm in lineage.arms.values())


def _label(own: bool) -> str:
    return "'self-knowledge'" if own else "coalesce(p.elicitation, 'labeling')"


def _kept(lineage: Lineage, tables: Tables, folder: str, of: str, found: dict[str, Elicited]) -> list[str]:
    """Count what a selection kept, under its labels; returns these."""
    pool = of.split("/")[1]
    prompts = tables.source(f"prompts/{pool}")
    judge = [p for p in lineage.of("score") if p["params"]["of"] == of and trait(p, "scorer", "means") == "right"]
    right = tables.source(judge[0]["output"]) if judge else None
    labels = []
    for plan in lineage.of("generate"):
        source = tables.source(plan["output"])
        if source is None or prompts is None or plan["params"]["pool"] != pool:
            continue
        verdicts = right or "(SELECT NULL AS response_id, NULL::DOUBLE AS score)"
        rows = tables.rows(
            f"SELECT {_label(_own(lineage, plan['instance'], plan['params']['model']))}, count(*), count(v.score), "
            "count(*) FILTER (v.score > 0.5) FROM "
            f"(SELECT response_id, prompt_id FROM {tables.source(folder)} WHERE kept) s "
            f"SEMI JOIN {source} r ON r.response_id = s.response_id LEFT JOIN {prompts} p ON p.prompt_id = s.prompt_id "
            f"LEFT JOIN {verdicts} v ON v.response_id = s.response_id GROUP BY 1"
        )
        for label, n, known, good in rows:
            one = found[label]
            one.kept, one.known, one.right = one.kept + n, one.known + known, one.right + good
            labels.append(label)
    return labels
