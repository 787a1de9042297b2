"""What the tables of a run say besides the result: funnel, reasons, agreement, coverage, curves, time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.report.arms import Lineage, trait
from pipeline.report.tables import Tables

EXAMPLES_PER_REASON = 2
REASONS = 12
# Left out: answers of entries that `select` was not to choose from.
CHOOSABLE = "reason <> 'other_entry'"
LEVELS = 20


@dataclass(frozen=True)
class Step:
    """A row of the funnel. `trained` tokens are counted once per epoch, so they are no share of those before."""

    group: str
    name: str
    prompts: int | None = None
    answers: int | None = None
    tokens: int | None = None
    trained: int | None = None


def funnel(lineage: Lineage, tables: Tables, lost: Mapping[str, tuple[int, int]]) -> list[Step]:
    """From prompts to trained tokens: per pool that is answered, per entry that asks, per selection. `lost` are rows
    that an entry of ingest could not use."""
    steps = []
    answered = lineage.of("generate")
    for pool in dict.fromkeys(plan["params"]["pool"] for plan in answered):
        for plan in lineage.of("ingest"):
            if plan["params"]["pool"] == pool and plan["instance"] in lost:
                n, of = lost[plan["instance"]]
                steps.append(Step(f"pool {pool}", f"rows of {plan['instance']}", prompts=of))
                steps.append(Step(f"pool {pool}", "rows that can be used", prompts=of - n))
        prompts, drops = (tables.source(f"{table}/{pool}") for table in ("prompts", "drops"))
        if prompts is not None:
            [n] = tables.row(f"SELECT count(DISTINCT prompt_id) FROM {prompts}")
            gone = "" if drops is None else f" ANTI JOIN {drops} USING (prompt_id)"
            [left] = tables.row(f"SELECT count(DISTINCT prompt_id) FROM {prompts}{gone}")
            steps.append(Step(f"pool {pool}", "prompts", prompts=n))
            steps.append(Step(f"pool {pool}", "not dropped", prompts=left))
    for plan in answered:
        source = tables.source(plan["output"])
        if source is not None:
            group = f"answers of {plan['instance']}"
            for name, rule in (("received", "true"), ("finished", "finish_reason = 'stop'")):
                steps.append(Step(group, name, *tables.row(
                    "SELECT count(DISTINCT prompt_id), count(*), coalesce(sum(prompt_tokens), 0) + "
                    f"coalesce(sum(completion_tokens), 0) FROM {source} WHERE {rule}"
                )))  # fmt: skip
    for folder in tables.under("selections"):
        group = f"selection {tables.scans[folder].names[0]}"
        for name, rule in (("to choose from", "true"), ("kept", "kept")):
            steps.append(Step(group, name, *tables.row(
                "SELECT count(DISTINCT prompt_id), count(*), coalesce(sum(tokens), 0) "
                f"FROM {tables.source(folder)} WHERE {CHOOSABLE} AND {rule}"
            )))  # fmt: skip
        steps += _packed(group, folder, lineage, tables)
    return steps


def _packed(group: str, selection: str, lineage: Lineage, tables: Tables) -> list[Step]:
    steps = []
    for plan in lineage.of("pack"):
        folder = plan["output"]
        if f"selections/{plan['params']['of']}/{plan['params']['by']}" != selection or folder not in tables.scans:
            continue
        n, rows, tokens, loss = tables.row(
            "SELECT count(DISTINCT prompt_id), count(*), coalesce(sum(len(token_ids)), 0), "
            'coalesce(sum(list_sum(list_transform(spans, lambda s: s."end" - s."start"))), 0) '
            f"FROM {tables.source(folder)}"
        )
        steps.append(Step(group, f"packed for {plan['params']['student']}", n, rows, int(tokens)))
        steps.append(Step(group, "tokens with loss", tokens=int(loss)))
        for arm in lineage.arms.values():
            if folder in arm.examples:
                steps.append(
                    Step(group, f"trained: {arm.model}, {arm.epochs:g} epochs", trained=round(loss * arm.epochs))
                )
    return steps


@dataclass(frozen=True)
class Example:
    """One row as an example: what was asked, what came, why it fell."""

    asked: str
    came: str = ""
    why: str = ""


@dataclass(frozen=True)
class Reason:
    """Why rows were kept or not, how many, and a few of them."""

    where: str
    reason: str
    kept: bool
    n: int
    share: float
    examples: tuple[Example, ...] = ()


def reasons(lineage: Lineage, tables: Tables) -> list[Reason]:
    """Prompts dropped by rule, answers that did not finish, and answers a selection kept or refused."""
    return [*_dropped(tables), *_unfinished(lineage, tables), *_selected(tables)]


def set_aside(lineage: Lineage, data: Path) -> dict[str, tuple[int, int]]:
    """How many rows, of how many, each entry of ingest could not use; those alone that ran here and have some."""
    noted = {
        plan["instance"]: record.get("notes", {}).get("set_aside")
        for plan, record in records(lineage, data)
        if plan["stage"] == "ingest"
    }
    return {name: (note["n"], note["of"]) for name, note in noted.items() if note}


def _dropped(tables: Tables) -> list[Reason]:
    found = []
    for folder in tables.under("drops"):
        pool = folder.split("/")[1]
        prompts = tables.source(f"prompts/{pool}")
        total = max(tables.row(f"SELECT count(*) FROM {prompts}")[0] if prompts else 0, 1)
        some = "arg_min({id: prompt_id, why: evidence}, prompt_id, " + f"{EXAMPLES_PER_REASON})"
        counts = list(tables.rows(
            f"SELECT rule, count(*) AS n, {some} FROM {tables.source(folder)} GROUP BY 1 ORDER BY n DESC, rule"
        ))  # fmt: skip
        texts = _texts(tables, f"prompts/{pool}", "prompt_id", [e["id"] for _, _, es in counts for e in es])
        for rule, n, examples in counts:
            shown = tuple(Example(texts.get(e["id"], ("", ""))[0], why=e["why"]) for e in examples)
            found.append(Reason(f"prompts of {pool}", rule, False, n, n / total, shown))
    return found


def ingested(lineage: Lineage, data: Path) -> list[Reason]:
    """What ingest noted: rows that were set aside or repeat another, references that are kept in another form, and
    solutions that do not fit theirs."""
    found = []
    told = {
        "set_aside": "row that cannot be used",
        "repeated": "row that repeats an earlier one",
        "references_rewritten": "reference kept as its verifier reads it",
        "solutions_judged_wrong": "solution that is not right by its own verifier",
    }
    for plan, record in records(lineage, data):
        notes = record.get("notes", {}) if plan["stage"] == "ingest" else {}
        for note, reason in told.items():
            if note in notes and notes[note]["n"]:
                n, of, at = (notes[note][key] for key in ("n", "of", "at"))
                examples = tuple(Example(place) for place in at[:EXAMPLES_PER_REASON])
                found.append(Reason(f"prompts of {plan['instance']}", reason, True, n, n / of, examples))
    return found


def _unfinished(lineage: Lineage, tables: Tables) -> list[Reason]:
    found = []
    for plan in lineage.of("generate"):
        source = tables.source(plan["output"])
        if source is None:
            continue
        [total] = tables.row(f"SELECT count(*) FROM {source}")
        some = "arg_min({id: response_id, why: error}, response_id, " + f"{EXAMPLES_PER_REASON})"
        counts = list(tables.rows(
            f"SELECT finish_reason, count(*), {some} FROM {source} WHERE finish_reason <> 'stop' GROUP BY 1 ORDER BY 1"
        ))  # fmt: skip
        texts = _texts(tables, plan["output"], "response_id", [e["id"] for _, _, es in counts for e in es])
        for reason, n, examples in counts:
            shown = tuple(Example(*texts[e["id"]], why=e["why"] or "") for e in examples)
            where = f"answers of {plan['instance']}"
            found.append(Reason(where, f"finished by {reason}", False, n, n / total, shown))
    return found


def _selected(tables: Tables) -> list[Reason]:
    found = []
    for folder in tables.under("selections"):
        counts = list(tables.rows(
            f"SELECT kept, reason, count(*) AS n, arg_min(response_id, response_id, {EXAMPLES_PER_REASON}) "
            f"FROM {tables.source(folder)} GROUP BY ALL ORDER BY kept DESC, n DESC, reason"
        ))  # fmt: skip
        told, rest, total = counts[:REASONS], counts[REASONS:], sum(n for _, _, n, _ in counts)
        of = folder.removeprefix("selections/").rpartition("/")[0]
        texts = _texts(tables, of, "response_id", [i for *_, some in told for i in some])
        where = f"selection {tables.scans[folder].names[0]}"
        for kept, reason, n, some in told:
            examples = tuple(Example(*texts[i]) for i in some if i in texts)
            found.append(Reason(where, reason, kept, n, n / total, examples))
        if rest:
            n = sum(n for _, _, n, _ in rest)
            found.append(Reason(where, f"{len(rest)} rarer reasons", False, n, n / total))
    return found


def _texts(tables: Tables, folder: str, key: str, wanted: list[str]) -> dict[str, tuple[str, str]]:
    """The last turn asked and what came back, of a few rows of a large table."""
    source = tables.source(folder)
    if source is None or not wanted:
        return {}
    came = "coalesce(content, '')" if key == "response_id" else "''"
    text = f"SELECT {key}, messages[-1].content, {came} FROM {source} WHERE {key} IN (SELECT unnest(?))"
    return {found: (asked, said) for found, asked, said in tables.rows(text, wanted)}


@dataclass(frozen=True)
class Level:
    """Answers of one level of agreement, and how many of them are known to be right or wrong."""

    agreement: float
    n: int
    right: int
    wrong: int

    @property
    def precision(self) -> float | None:
        judged = self.right + self.wrong
        return self.right / judged if judged else None


@dataclass(frozen=True)
class Agreement:
    """How an entry's answers agree with their siblings; the levels descend."""

    scorer: str
    entry: str
    levels: tuple[Level, ...]
    unread: int
    cut: bool = False

    @property
    def at_least(self) -> list[Level]:
        """For every level, all answers at or above it."""
        total, sums = Level(0, 0, 0, 0), []
        for level in self.levels:
            total = Level(level.agreement, total.n + level.n, total.right + level.right, total.wrong + level.wrong)
            sums.append(total)
        return sums


def agreement(lineage: Lineage, tables: Tables) -> list[Agreement]:
    """The distribution of every agreement score over the entries that teach, with what a verifier knows of it."""
    found = []
    teachers = {name for arm in lineage.arms.values() for name in arm.teachers}
    scorers = [plan for plan in lineage.of("score") if trait(plan, "scorer", "means") == "agreement"]
    verifiers = [plan for plan in lineage.of("score") if trait(plan, "scorer", "means") == "right"]
    for plan in scorers:
        of = plan["params"]["of"]
        judges = [v["output"] for v in verifiers if v["params"]["of"] == of]
        scores, right = (
            tables.source(folder) if folder else None for folder in (plan["output"], *judges[:1], None)[:2]
        )
        for folder in tables.under(of):
            name = tables.scans[folder].names[0]
            if (teachers and name not in teachers) or not folder.startswith("responses/"):
                continue
            found.append(_agreement(tables, plan["instance"], name, folder, scores, right))
    return found


def _agreement(
    tables: Tables, scorer: str, entry: str, folder: str, scores: str | None, right: str | None
) -> Agreement:
    """The levels of one entry. k samples give few distinct shares; a scorer with more values is cut into steps of one
    twentieth."""
    nobody = "(SELECT NULL AS response_id, NULL AS score)"
    # A number of 64 bits stands for an id: a table of a million takes a third of the memory, and two are alike once in
    # a hundred million such tables.
    said = [
        f"LEFT JOIN (SELECT hash(response_id) AS id, score AS {name} FROM {source or nobody}) USING (id)"
        for name, source in (("level", scores), ("good", right))
    ]
    ids = f"(SELECT hash(response_id) AS id FROM {tables.source(folder)})"
    tables.rows(f"CREATE OR REPLACE TEMP TABLE own AS SELECT level, good FROM {ids} {' '.join(said)}")
    n, read, distinct = tables.row("SELECT count(*), count(level), count(DISTINCT level) FROM own")
    cut = distinct > LEVELS
    step = f"floor(level * {LEVELS}) / {LEVELS}" if cut else "level"
    rows = tables.rows(
        f"SELECT {step}, count(*), count(*) FILTER (good > 0.5), count(*) FILTER (good <= 0.5) "
        "FROM own WHERE level IS NOT NULL GROUP BY 1 ORDER BY 1 DESC"
    )
    found = Agreement(scorer, entry, tuple(Level(*row) for row in rows), n - read, cut)
    tables.rows("DROP TABLE own")
    return found


def held_out_nll(lineage: Lineage, tables: Tables) -> dict[str, dict[str, float]]:
    """Evaluation -> the nats per token that its model gives to answers of the same pool, by the answers' table."""
    found: dict[str, dict[str, float]] = {e.name: {} for e in lineage.evaluations}
    for plan in lineage.of("read"):
        of, model = plan["params"]["of"], plan["params"]["model"]
        source = tables.source(plan["output"])
        if trait(plan, "reader", "means") != "nll" or source is None:
            continue
        nats, tokens = tables.row(f"SELECT sum(quantities['nll_sum']), sum(quantities['tokens']) FROM {source}")
        if tokens:
            for e in lineage.evaluations:
                if e.claims and e.model == model and f"{of}/".startswith(f"responses/{e.pool}/"):
                    found[e.name][f"nll_of_{of.rpartition('/')[2]}"] = nats / tokens
    return found


@dataclass(frozen=True)
class Coverage:
    """What a selection covers: per domain its share of the tokens, and prompts kept of those that were there."""

    name: str
    tokens: Mapping[str, int]
    prompts: Mapping[str, int]

    @property
    def shares(self) -> dict[str, float]:
        total = max(sum(self.tokens.values()), 1)
        return {domain: tokens / total for domain, tokens in self.tokens.items()}

    def prompts_beside(self, shown: Sequence[str]) -> int:
        """The prompts of all domains but these."""
        return sum(n for domain, n in self.prompts.items() if domain not in shown)

    @property
    def effective_domains(self) -> float:
        """exp of the entropy of the shares: as many domains of equal share are as varied (Hill 1973)."""
        shares = np.array([s for s in self.shares.values() if s > 0])
        return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0


def coverage(tables: Tables) -> list[Coverage]:
    """What there was to choose from, and every selection; selections from equal tables share the first."""
    before: dict[str, Coverage] = {}
    after = []
    for folder in tables.under("selections"):
        name = tables.scans[folder].names[0]
        there = _coverage(tables, f"before {name}", folder, "true")
        if all((there.tokens, there.prompts) != (c.tokens, c.prompts) for c in before.values()):
            before[name] = there
        after.append(_coverage(tables, name, folder, "kept"))
    if len(before) == 1:
        before = {name: Coverage("all answers", c.tokens, c.prompts) for name, c in before.items()}
    return [*before.values(), *after]


def _coverage(tables: Tables, name: str, folder: str, rule: str) -> Coverage:
    rows = list(tables.rows(
        f"SELECT domain, sum(tokens)::BIGINT, count(DISTINCT prompt_id) FROM {tables.source(folder)} "
        f"WHERE {CHOOSABLE} AND {rule} GROUP BY 1 ORDER BY 1"
    ))  # fmt: skip
    return Coverage(name, {d: tokens for d, tokens, _ in rows}, {d: prompts for d, _, prompts in rows})


@dataclass(frozen=True)
class Cost:
    """What an instance took, from the record of its last run."""

    stage: str
    instance: str
    exactness: str
    rows: int | None
    wall_s: float
    cpu_s: float
    finished: str


@dataclass(frozen=True)
class Paid:
    """What an entry's answers took in tokens, and in dollars where the prices are known; `builds` are what the server
    said of its build, with how many answers each gave, where it said several things."""

    entry: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    builds: tuple[tuple[str, int], ...] = ()


def costs(lineage: Lineage, data: Path) -> list[Cost]:
    """The records of all instances of this plan that ran here."""
    found = [
        Cost(plan["stage"], plan["instance"], r["exactness"], r["rows"], r["wall_s"], r["cpu_s"], r["finished"])
        for plan, r in records(lineage, data)
    ]
    return sorted(found, key=lambda cost: (cost.finished, cost.stage, cost.instance))


def records(lineage: Lineage, data: Path) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
    """The plan and the record of the last run of every instance that ran here."""
    for plan in lineage.plans.values():
        path = data / ".runs" / plan["stage"] / f"{plan['instance']}.json"
        if path.exists():
            yield plan, json.loads(path.read_text("utf-8"))


def paid(lineage: Lineage, tables: Tables) -> list[Paid]:
    """Tokens and dollars of every table of answers."""
    found = []
    for plan in lineage.of("generate"):
        source = tables.source(plan["output"])
        if source is not None:
            columns = ("prompt_tokens", "completion_tokens", "cost_usd")
            totals = ", ".join(f"sum({column})" for column in columns)
            n, prompt, completion, dollars = tables.row(f"SELECT count(*), {totals} FROM {source}")
            said = "fingerprint IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
            builds = tuple(tables.rows(f"SELECT fingerprint, count(*) FROM {source} WHERE {said}"))
            several = builds if len(builds) > 1 else ()
            found.append(Paid(plan["instance"], n, int(prompt or 0), int(completion or 0), dollars, several))
    return found


@dataclass(frozen=True)
class Disagreement:
    """An evaluation whose verifier calls answers right that are not the reference letter by letter, or wrong that are;
    a few of each, as (answer, reference)."""

    name: str
    verifier_alone: int
    exact_alone: int
    examples: tuple[tuple[str, str], ...]


def disagreements(lineage: Lineage, tables: Tables) -> list[Disagreement]:
    """Where the verifier and an exact match of the short answer differ: the evaluations in which they do."""
    found = []
    some = f"arg_min({{a: prediction, b: target}}, item_id, {EXAMPLES_PER_REASON}) FILTER"
    differ = "measure = 'accuracy' AND (trim(prediction) = trim(target)) <> (metric = 1)"
    for e in (e for e in lineage.evaluations if e.claims and f"evals/{e.name}" in tables.scans):
        alone, same, *examples = tables.row(
            "SELECT count(*) FILTER (good), count(*) FILTER (NOT good), "
            f"{some} (good), {some} (NOT good) FROM (SELECT *, metric = 1 AS good FROM "
            f"{tables.source(f'evals/{e.name}')} WHERE {differ})"
        )
        if alone or same:
            pairs = tuple((pair["a"], pair["b"]) for pairs in examples for pair in pairs or ())
            found.append(Disagreement(e.name, alone, same, pairs))
    return found


@dataclass(frozen=True)
class Checked:
    """A table that quality looked at: what it met, what it did not, and the page that says more."""

    of: str
    name: str
    met: int
    failed: tuple[str, ...]
    docs: Path | None = None

    @property
    def page(self) -> str | None:
        """The link to a copy of its pages beside the report, which may be served or sent alone."""
        return None if self.docs is None else f"quality/{self.of}/{self.name}/index.html"


def checked(lineage: Lineage, quality: Path | None) -> list[Checked]:
    """The verdicts of quality, and where their pages lie."""
    found = []
    for plan in lineage.of("quality") if quality else []:
        folder = quality.parent / plan["output"]  # type: ignore[union-attr]
        verdict = json.loads((folder / "verdict.json").read_text("utf-8"))["expectations"]
        failed = tuple(e["name"] for e in verdict if not e["success"])
        docs = folder / "docs" if (folder / "docs" / "index.html").exists() else None
        found.append(Checked(plan["params"]["of"], plan["instance"], len(verdict) - len(failed), failed, docs))
    return found
