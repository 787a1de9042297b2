"""What the tables of a run say besides the result: funnel, reasons, agreement, coverage, curves, time."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.graph import inside
from pipeline.report.arms import Lineage, trait
from pipeline.tables.parquet import Scan

EXAMPLES_PER_REASON = 2
REASONS = 12
# The reason of `select` for answers of entries that it was not to choose from.
OTHER_ENTRY = "other_entry"
LEVELS = 20


@dataclass(frozen=True)
class Tables:
    """The tables of a run by their folder under `data/`, such as `responses/train/teacher`."""

    scans: Mapping[str, Scan]

    @classmethod
    def of(cls, data: Path, scans: Iterable[Scan]) -> Tables:
        return cls(
            {folder.relative_to(data).as_posix(): Scan(s.table, (folder,)) for s in scans for folder in s.folders}
        )

    def under(self, folder: str) -> list[tuple[str, Scan]]:
        """The tables that are this folder or lie under it."""
        return [(name, s) for name, s in self.scans.items() if inside(name, folder)]

    def rows(self, folder: str, columns: Sequence[str]) -> pa.Table | None:
        """Some columns of all tables under a folder; None if there are none."""
        found = [scan.read(columns) for _, scan in self.under(folder)]
        return pa.concat_tables(found) if found else None


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
        prompts, drops = tables.rows(f"prompts/{pool}", ["prompt_id"]), tables.rows(f"drops/{pool}", ["prompt_id"])
        if prompts is not None:
            dropped = set(drops["prompt_id"].to_pylist()) if drops is not None else set()
            ids = set(prompts["prompt_id"].to_pylist())
            steps.append(Step(f"pool {pool}", "prompts", prompts=len(ids)))
            steps.append(Step(f"pool {pool}", "not dropped", prompts=len(ids - dropped)))
    for plan in answered:
        columns = ["prompt_id", "finish_reason", "prompt_tokens", "completion_tokens"]
        rows = tables.rows(plan["output"], columns)
        if rows is not None:
            group = f"answers of {plan['instance']}"
            finished = rows.filter(pc.equal(rows["finish_reason"], "stop"))
            steps += [_answers_step(group, "received", rows), _answers_step(group, "finished", finished)]
    for folder, scan in tables.under("selections"):
        rows = _choosable(scan)
        group = f"selection {scan.names[0]}"
        for name, part in (("to choose from", rows), ("kept", rows.filter(rows["kept"]))):
            steps.append(Step(group, name, _distinct(part), len(part), pc.sum(part["tokens"]).as_py() or 0))
        steps += _packed(group, folder, lineage, tables)
    return steps


def _choosable(scan: Scan) -> pa.Table:
    """The rows of a selection whose entry it could choose from."""
    rows = scan.read(["prompt_id", "domain", "kept", "tokens", "reason"])
    return rows.filter(pc.not_equal(rows["reason"], OTHER_ENTRY))


def _answers_step(group: str, name: str, rows: pa.Table) -> Step:
    tokens = sum(pc.sum(rows[c]).as_py() or 0 for c in ("prompt_tokens", "completion_tokens"))
    return Step(group, name, _distinct(rows), len(rows), tokens)


def _distinct(rows: pa.Table) -> int:
    return pc.count_distinct(rows["prompt_id"]).as_py()


def _packed(group: str, selection: str, lineage: Lineage, tables: Tables) -> list[Step]:
    steps = []
    for plan in lineage.of("pack"):
        folder = plan["output"]
        if f"selections/{plan['params']['of']}/{plan['params']['by']}" != selection or folder not in tables.scans:
            continue
        rows = tables.scans[folder].read(["prompt_id", "token_ids", "spans"])
        spans = pc.list_flatten(rows["spans"])
        loss = pc.sum(pc.subtract(pc.struct_field(spans, "end"), pc.struct_field(spans, "start"))).as_py() or 0
        steps.append(
            Step(group, f"packed for {plan['params']['student']}", _distinct(rows), len(rows),
                 pc.sum(pc.list_value_length(rows["token_ids"])).as_py() or 0)
        )  # fmt: skip
        steps.append(Step(group, "tokens with loss", tokens=loss))
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
    for folder, scan in tables.under("drops"):
        pool = folder.split("/")[1]
        rows = sorted(scan.pylist(), key=lambda row: row["prompt_id"])
        total = max(sum(s.count() for _, s in tables.under(f"prompts/{pool}")), 1)
        counts = Counter(row["rule"] for row in rows)
        some = {rule: [r for r in rows if r["rule"] == rule][:EXAMPLES_PER_REASON] for rule in counts}
        texts = _texts(tables, f"prompts/{pool}", "prompt_id", [r["prompt_id"] for rs in some.values() for r in rs])
        for rule, n in counts.most_common():
            examples = tuple(Example(texts.get(r["prompt_id"], ("", ""))[0], why=r["evidence"]) for r in some[rule])
            found.append(Reason(f"prompts of {pool}", rule, False, n, n / total, examples))
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
        rows = tables.rows(plan["output"], ["response_id", "finish_reason", "error"])
        if rows is None:
            continue
        total, rows = len(rows), rows.filter(pc.not_equal(rows["finish_reason"], "stop"))
        by_reason: dict[str, list[dict[str, Any]]] = {}
        for row in sorted(rows.to_pylist(), key=lambda r: r["response_id"]):
            by_reason.setdefault(row["finish_reason"], []).append(row)
        some = {reason: rs[:EXAMPLES_PER_REASON] for reason, rs in by_reason.items()}
        wanted = [r["response_id"] for rs in some.values() for r in rs]
        texts = _texts(tables, plan["output"], "response_id", wanted)
        for reason, rs in sorted(by_reason.items()):
            examples = tuple(Example(*texts[r["response_id"]], why=r["error"] or "") for r in some[reason])
            where = f"answers of {plan['instance']}"
            found.append(Reason(where, f"finished by {reason}", False, len(rs), len(rs) / total, examples))
    return found


def _selected(tables: Tables) -> list[Reason]:
    found = []
    for folder, scan in tables.under("selections"):
        rows = scan.read(["response_id", "kept", "reason"])
        counts = rows.group_by(["kept", "reason"]).aggregate([("response_id", "count")]).to_pylist()
        counts.sort(key=lambda c: (-c["kept"], -c["response_id_count"], c["reason"]))
        told, rest = counts[:REASONS], counts[REASONS:]
        some = {(c["kept"], c["reason"]): _first(rows, c["kept"], c["reason"]) for c in told}
        of = folder.removeprefix("selections/").rpartition("/")[0]
        texts = _texts(tables, of, "response_id", [i for some_ids in some.values() for i in some_ids])
        where = f"selection {scan.names[0]}"
        for c in told:
            examples = tuple(Example(*texts[i]) for i in some[c["kept"], c["reason"]] if i in texts)
            n = c["response_id_count"]
            found.append(Reason(where, c["reason"], c["kept"], n, n / len(rows), examples))
        if rest:
            n = sum(c["response_id_count"] for c in rest)
            found.append(Reason(where, f"{len(rest)} rarer reasons", False, n, n / len(rows)))
    return found


def _first(rows: pa.Table, kept: bool, reason: str) -> list[str]:
    one = rows.filter(pc.and_(pc.equal(rows["kept"], kept), pc.equal(rows["reason"], reason)))["response_id"]
    return one.take(pc.sort_indices(one)[:EXAMPLES_PER_REASON]).to_pylist()


def _texts(tables: Tables, folder: str, key: str, wanted: list[str]) -> dict[str, tuple[str, str]]:
    """The last turn asked and what came back, of a few rows of a large table, part by part."""
    found = {}
    answers = key == "response_id"
    for _, scan in tables.under(folder):
        for part in range(scan.parts):
            rows = scan.at(part).read([key, "messages", "content"] if answers else [key, "messages"])
            for row in rows.filter(pc.is_in(rows[key], pa.array(wanted, pa.string()))).to_pylist():
                found[row[key]] = (row["messages"][-1]["content"], (row["content"] or "") if answers else "")
    return found


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
        scores, right = _scores(tables, plan["output"]), _scores(tables, judges[0]) if judges else {}
        for folder, scan in tables.under(of):
            if (teachers and scan.names[0] not in teachers) or not folder.startswith("responses/"):
                continue
            own = [(scores.get(i), right.get(i)) for i in scan.read(["response_id"])["response_id"].to_pylist()]
            read = [(s, r) for s, r in own if s is not None]
            # k samples give few distinct shares; a scorer with more values is cut into steps of one twentieth.
            cut = len({score for score, _ in read}) > LEVELS
            found.append(Agreement(plan["instance"], scan.names[0], _levels(read, cut), len(own) - len(read), cut))
    return found


def held_out_nll(lineage: Lineage, tables: Tables) -> dict[str, dict[str, float]]:
    """Evaluation -> the nats per token that its model gives to answers of the same pool, by the answers' table."""
    found: dict[str, dict[str, float]] = {e.name: {} for e in lineage.evaluations}
    for plan in lineage.of("read"):
        of, model = plan["params"]["of"], plan["params"]["model"]
        rows = tables.rows(plan["output"], ["quantities"])
        if trait(plan, "reader", "means") != "nll" or rows is None:
            continue
        read = [dict(quantities) for quantities in rows["quantities"].to_pylist() if quantities]
        if read:
            nats, tokens = (math.fsum(quantities[key] for quantities in read) for key in ("nll_sum", "tokens"))
            for e in lineage.evaluations:
                if e.model == model and f"{of}/".startswith(f"responses/{e.pool}/"):
                    found[e.name][f"nll_of_{of.rpartition('/')[2]}"] = nats / tokens
    return found


def _scores(tables: Tables, folder: str) -> dict[str, float | None]:
    rows = tables.rows(folder, ["response_id", "score"])
    return {} if rows is None else dict(zip(rows["response_id"].to_pylist(), rows["score"].to_pylist(), strict=True))


def _levels(pairs: list[tuple[float, float | None]], cut: bool) -> tuple[Level, ...]:
    counts: dict[float, list[int]] = {}
    for score, right in pairs:
        level = math.floor(score * LEVELS) / LEVELS if cut else score
        count = counts.setdefault(level, [0, 0, 0])
        count[0] += 1
        if right is not None:
            count[1 if right > 0.5 else 2] += 1
    return tuple(Level(level, *counts[level]) for level in sorted(counts, reverse=True))


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
    for _, scan in tables.under("selections"):
        rows, name = _choosable(scan), scan.names[0]
        there = _coverage(f"before {name}", rows)
        if all((there.tokens, there.prompts) != (c.tokens, c.prompts) for c in before.values()):
            before[name] = there
        after.append(_coverage(name, rows.filter(rows["kept"])))
    if len(before) == 1:
        before = {name: Coverage("all answers", c.tokens, c.prompts) for name, c in before.items()}
    return [*before.values(), *after]


def _coverage(name: str, rows: pa.Table) -> Coverage:
    table = rows.group_by("domain").aggregate([("tokens", "sum"), ("prompt_id", "count_distinct")]).sort_by("domain")
    domains = table["domain"].to_pylist()
    return Coverage(
        name,
        dict(zip(domains, table["tokens_sum"].to_pylist(), strict=True)),
        dict(zip(domains, table["prompt_id_count_distinct"].to_pylist(), strict=True)),
    )


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
    """What an entry's answers took in tokens, and in dollars where the prices are known."""

    entry: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


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
        rows = tables.rows(plan["output"], ["prompt_tokens", "completion_tokens", "cost_usd"])
        if rows is not None:
            prompt, completion, dollars = (pc.sum(rows[name]).as_py() for name in rows.column_names)
            found.append(Paid(plan["instance"], len(rows), prompt or 0, completion or 0, dollars))
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
