"""The methods' taxonomy: how what was trained on was brought out of a model, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.kinds.operator import ELICITED
from pipeline.report.arms import Lineage, trait
from pipeline.report.facts import records
from pipeline.report.results import Answered
from pipeline.report.tables import Tables


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

    An answer is self-knowledge where a student is trained on it that begins as the model that gave it, and feedback
    where such a student learns how good its answers are; features are the rows that a teacher's distribution was read
    for.
    """
    found: dict[str, Elicited] = {label: Elicited(label) for label in ELICITED}
    asked = {p["instance"]: p for p in lineage.of("generate")}
    for plan in asked.values():
        source, prompts = tables.source(plan["output"]), _labelled(tables, plan["params"]["pool"])
        if source is None or prompts is None:
            continue
        label = label_of(lineage, plan["instance"], plan["params"]["model"])
        rows = tables.rows(
            f"SELECT {label}, count(DISTINCT prompt_id), count(*), coalesce(sum(completion_tokens), 0), "
            f"sum(cost_usd) FROM {source} r LEFT JOIN {prompts} p USING (prompt_id) GROUP BY 1"
        )
        for name, n, count, tokens, dollars in rows:
            one = found[name]
            one.prompts, one.answers, one.tokens = one.prompts + n, one.answers + count, one.tokens + int(tokens)
            one.cost_usd = one.cost_usd if dollars is None else (one.cost_usd or 0.0) + dollars
    chosen: dict[str, set[str]] = {}
    for folder in tables.under("selections"):
        of = folder.removeprefix("selections/").rpartition("/")[0]
        for label in _kept(lineage, tables, folder, of, found):
            chosen.setdefault(folder, set()).add(label)
    for plan, record in records(lineage, data):
        if plan["stage"] == "probe":
            _read(lineage, tables, plan["params"]["of"], record["rows"] or 0, found["feature"])
            chosen.setdefault(plan["output"], set()).add("feature")
    for a in answers:
        arm = lineage.arms.get(a.comparison.first.members[0].model)
        if arm is not None and a.comparison.kind == "control":
            own_rows = lineage.plans[f"models/{arm.model}"]["inputs"]["rows"]
            for label in {label for name in (*arm.selections, *own_rows) for label in chosen.get(name, ())}:
                found[label].students.append(a)
    return list(found.values())


def _labelled(tables: Tables, pool: str) -> str | None:
    """The prompts of a pool that say a label, which few do, as SQL after FROM; None without a pool."""
    prompts = tables.source(f"prompts/{pool}")
    return prompts and f"(SELECT prompt_id, elicitation FROM {prompts} WHERE elicitation IS NOT NULL)"


def label_of(lineage: Lineage, entry: str, model: str) -> str:
    """The label of an entry's answers, over its prompts p."""
    own = [arm.model for arm in lineage.arms.values() if arm.base == model and entry in arm.teachers]
    told = [read for name in own for read in lineage.plans[f"models/{name}"]["traits"]["objective"].values()]
    if not own:
        return "coalesce(p.elicitation, 'labeling')"
    return "'feedback'" if any("reward_B" in traits["reads"] for traits in told) else "'self-knowledge'"


def _read(lineage: Lineage, tables: Tables, of: str, rows: int, one: Elicited) -> None:
    """Count the examples that a teacher's distribution was read for."""
    one.kept += rows
    examples, packed = tables.source(f"examples/{of}"), lineage.plans[f"examples/{of}"]["params"]
    if examples is None:
        return
    prompts, answers, tokens = tables.row(
        f"SELECT count(DISTINCT prompt_id), count(*), coalesce(sum(len(token_ids)), 0) FROM {examples}"
    )
    known, right = tables.row(
        f"SELECT count(v.score), count(*) FILTER (v.score > 0.5) FROM (SELECT unnest(response_ids) AS response_id "
        f"FROM {examples}) e JOIN {_verdicts(lineage, tables, packed['of'])} v USING (response_id)"
    )
    one.prompts, one.answers, one.tokens = one.prompts + prompts, one.answers + answers, one.tokens + int(tokens)
    one.known, one.right = one.known + known, one.right + right


def _verdicts(lineage: Lineage, tables: Tables, of: str) -> str:
    """What a verifier says of the answers in a folder, as SQL after FROM."""
    judge = [p for p in lineage.of("score") if p["params"]["of"] == of and trait(p, "scorer", "means") == "right"]
    right = tables.source(judge[0]["output"]) if judge else None
    return right or "(SELECT NULL AS response_id, NULL::DOUBLE AS score)"


def _kept(lineage: Lineage, tables: Tables, folder: str, of: str, found: dict[str, Elicited]) -> list[str]:
    """Count what a selection kept, under its labels; returns these."""
    pool = of.split("/")[1]
    prompts = _labelled(tables, pool)
    verdicts, labels = _verdicts(lineage, tables, of), list[str]()
    for plan in lineage.of("generate"):
        source = tables.source(plan["output"])
        if source is None or prompts is None or plan["params"]["pool"] != pool:
            continue
        rows = tables.rows(
            f"SELECT {label_of(lineage, plan['instance'], plan['params']['model'])}, count(*), count(v.score), "
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
