"""What the evaluations say: the numbers of `metrics.json`, the verdicts, calibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import duckdb
import numpy as np

from pipeline.core.methods import available, find
from pipeline.report.arms import Comparison, Line, Lineage, comparisons
from pipeline.report.statistics import (
    LEVEL,
    Bin,
    Interval,
    Verdict,
    calibration_bins,
    ece,
    ece_interval,
    mcnemar,
    over_seeds,
    over_seeds_and_items,
    paired_bootstrap,
    paired_score,
    verdict,
    wilson,
)
from pipeline.tables import ids, sql
from pipeline.tables.parquet import Scan

# More than anyone is shown: who rounds these for people, rounds them as the report does.
DIGITS = 6

Metrics = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Judged:
    """One line of the results: its items that have a metric, and how sure the model was.

    `right` is [S, N]: a row per member, in the order of `items`, the numbers of what all of them were judged on;
    `of_domain` are numbers of `names`. The other items, for example those without a reference, are `left_out`. `means`
    are those of the quantities; `levels` have their items and the mean of the metric.
    """

    measure: str
    items: np.ndarray
    of_domain: np.ndarray
    names: tuple[str, ...]
    right: np.ndarray
    accuracy: Interval
    over: Interval | None
    bins: tuple[Bin, ...]
    error: Interval | None
    sharpness: float | None
    nll: float | None
    means: Mapping[str, float]
    levels: Mapping[int, tuple[int, float]]
    left_out: int = 0

    @property
    def n(self) -> int:
        return len(self.items)

    @property
    def seeds(self) -> int:
        return len(self.right)

    @property
    def spread(self) -> float:
        """The standard deviation of the accuracy over the members."""
        return float(self.right.mean(axis=1).std(ddof=1)) if self.seeds > 1 and self.n else math.nan

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Domain -> its items, in the order of the names."""
        counts = np.bincount(self.of_domain, minlength=len(self.names)).tolist()
        return {name: n for name, n in sorted(zip(self.names, counts, strict=True)) if n}

    @cached_property
    def domains(self) -> dict[str, float]:
        """Domain -> the mean of the metric."""
        return {d: float(self.right[:, self.of_domain == self.names.index(d)].mean()) for d in self.sizes}


@dataclass(frozen=True)
class Answered:
    """A comparison with its answer; `p` is McNemar's, null where a metric is not 0 or 1, and where there are several
    seeds.

    Of several seeds `difference` has the interval over seeds and items, and `over` the one over seeds alone.
    `corrected` is the chance beside all others on the page, and `refused` why nothing may be claimed.
    """

    comparison: Comparison
    difference: Interval
    n: int
    p: float | None
    seeds: int = 1
    over: Interval | None = None
    corrected: float | None = None
    refused: str | None = None

    @property
    def intervals(self) -> tuple[Interval, ...]:
        return (self.difference,) if self.over is None else (self.difference, self.over)

    @property
    def chance(self) -> float | None:
        """The p of there being no difference that every interval stands for; None if one has none."""
        chances = [interval.p for interval in self.intervals]
        return None if None in chances else max(p for p in chances if p is not None)

    @property
    def verdict(self) -> Verdict:
        if self.refused is not None:
            return "no claim"
        undecided = self.corrected is not None and self.corrected > 1 - LEVEL
        return "inconclusive" if undecided else verdict(*self.intervals)


@dataclass(frozen=True)
class Results:
    """All that follows from the tables of `evals`, by the name of a line.

    `judged` are lines whose metric is how good answers are, and `others` those of any other measure. `apart` are
    comparisons of lines that have no judged item in common.
    """

    judged: Mapping[str, Judged]
    answers: tuple[Answered, ...]
    metrics: Metrics
    apart: tuple[Comparison, ...] = ()
    others: Mapping[str, Judged] = field(default_factory=dict)


def judge(
    evals: Scan,
    lineage: Lineage,
    seed: int,
    more: Mapping[str, Mapping[str, float]],
    weigh: Callable[[Sequence[Answered]], tuple[Answered, ...]] = tuple,
) -> Results:
    """Every line judged, every comparison answered, and both as numbers; `more` holds other numbers of an
    evaluation, which need no reference answers, and `weigh` says what the comparisons are worth beside each other."""
    asked = _Evals(evals)
    lines = {line.name: line for line in lineage.lines if {e.name for e in line.members} <= set(evals.names)}
    found = {name: asked.judge(line, ids.seed_of(seed, "report", name)) for name, line in lines.items()}
    apart_from_answers = scales()
    judged = {
        name: one
        for name, one in found.items()
        if lines[name].members[0].claims and one.measure not in apart_from_answers
    }
    answers = tuple(
        answer(comparison, judged, seed)
        for comparison in comparisons(lineage)
        if {comparison.first.name, comparison.second.name} <= judged.keys()
    )
    apart = tuple(a.comparison for a in answers if not a.n)
    answers = weigh([a for a in answers if a.n])
    others = {name: one for name, one in found.items() if name not in judged}
    return Results(judged, answers, _metrics(found, answers, lineage, asked, more), apart, others)


@dataclass(frozen=True)
class Scale:
    """What a verifier of arrays measures in, and which way is better."""

    unit: str
    better: str


@cache
def scales() -> dict[str, Scale]:
    """What each verifier of arrays measures -> its scale."""
    traits = [find("verifier", name).traits for name in available("verifier")]
    return {t["measure"]: Scale(t["unit"], t["better"]) for t in traits if "measure" in t}


class _Evals:
    """The tables of evals, asked by SQL: rows stay where they are, and what comes here are columns of numbers."""

    def __init__(self, evals: Scan) -> None:
        data = evals.folders[0].parents[1] if evals.folders else None
        self.connection = sql.opened([]) if data is None else sql.connect([evals], data)
        self.connection.execute(
            "CREATE TABLE items AS SELECT item_id, row_number() OVER (ORDER BY item_id) - 1 AS number "
            "FROM (SELECT DISTINCT item_id FROM evals)"
        )
        self.names = tuple(r[0] for r in self.ask("SELECT DISTINCT domain FROM evals ORDER BY 1").fetchall())
        self.connection.execute("CREATE TABLE domains (domain VARCHAR, code INTEGER)")
        if self.names:
            self.connection.executemany(
                "INSERT INTO domains VALUES (?, ?)", list(zip(self.names, range(len(self.names)), strict=True))
            )

    def ask(self, text: str, *given: Any) -> duckdb.DuckDBPyConnection:
        return self.connection.execute(text, given)

    def judge(self, line: Line, seed: int) -> Judged:
        members = [
            self.ask(
                "SELECT number, code, metric, confidence FROM evals JOIN items USING (item_id) "
                "JOIN domains USING (domain) WHERE instance = ? ORDER BY number",
                e.name,
            ).fetchnumpy()
            for e in line.members
        ]
        metrics = [np.ma.filled(of["metric"], np.nan).astype(np.float64) for of in members]
        known = [~np.isnan(metric) for metric in metrics]
        items = members[0]["number"][known[0]]
        for of, there in zip(members[1:], known[1:], strict=True):
            items = np.intersect1d(items, of["number"][there], assume_unique=True)
        right = np.array([
            metric[there][np.isin(of["number"][there], items)]
            for of, there, metric in zip(members, known, metrics, strict=True)
        ])  # fmt: skip
        first = members[0]
        of_domain = first["code"][known[0]][np.isin(first["number"][known[0]], items)]
        sure = [np.ma.filled(of["confidence"], np.nan).astype(np.float64) for of in members]
        told = [there & ~np.isnan(c) for there, c in zip(known, sure, strict=True)]
        confidence = np.concatenate([c[some] for c, some in zip(sure, told, strict=True)])
        metric = np.concatenate([m[some] for m, some in zip(metrics, told, strict=True)])
        several = len(members) > 1 and len(items) > 0
        measure = self._measure(line)
        bins = tuple(calibration_bins(confidence, metric)) if measure == "accuracy" else ()
        if several:
            accuracy = over_seeds_and_items(right, seed)
        elif np.isin(right, (0.0, 1.0)).all():
            accuracy = wilson(math.fsum(right[0]), len(items))
        else:
            accuracy = paired_bootstrap(right[0], np.zeros(len(items)), seed)
        everyone = np.unique(np.concatenate([of["number"] for of in members]))
        return Judged(
            measure=measure,
            items=items,
            of_domain=of_domain,
            names=self.names,
            right=right,
            accuracy=accuracy,
            over=over_seeds(right) if several else None,
            bins=bins,
            error=ece_interval(confidence, metric, seed) if bins else None,
            sharpness=float(confidence.std()) if bins else None,
            nll=_log_score(confidence, metric) if bins else None,
            means=self._means(line),
            levels=self._levels(line),
            left_out=len(everyone) - len(items),
        )

    def _measure(self, line: Line) -> str:
        found = self.ask("SELECT any_value(measure) FROM evals WHERE instance = ?", line.members[0].name).fetchone()
        return (found and found[0]) or "accuracy"

    def _means(self, line: Line) -> dict[str, float]:
        """The mean of every quantity over the rows that have it, of all members."""
        marks = ", ".join("?" for _ in line.members)
        rows = self.ask(
            "SELECT entry.key, avg(entry.value) FROM (SELECT unnest(map_entries(quantities)) AS entry FROM evals "
            f"WHERE instance IN ({marks})) GROUP BY 1 ORDER BY 1",
            *(e.name for e in line.members),
        )
        return dict(rows.fetchall())

    def _levels(self, line: Line) -> dict[int, tuple[int, float]]:
        """Level -> its items that have a metric, and the mean of it."""
        marks = ", ".join("?" for _ in line.members)
        rows = self.ask(
            f"SELECT level, count(DISTINCT item_id), avg(metric) FROM evals WHERE instance IN ({marks}) "
            "AND level IS NOT NULL AND metric IS NOT NULL GROUP BY 1 ORDER BY 1",
            *(e.name for e in line.members),
        )
        return {level: (n, mean) for level, n, mean in rows.fetchall()}

    def agreement(self, one: str, other: str) -> float:
        """The share of items on which both gave the same short answer; an item without one is a disagreement."""
        found = self.ask(
            "SELECT avg(coalesce(a.prediction = b.prediction, false)::DOUBLE) "
            "FROM evals a JOIN evals b USING (item_id) WHERE a.instance = ? AND b.instance = ?", one, other,
        ).fetchone()  # fmt: skip
        return math.nan if found is None or found[0] is None else found[0]


def _log_score(confidence: np.ndarray, right: np.ndarray) -> float:
    """The mean of -log of the probability that was given to what happened, cut at one in a million."""
    given = np.where(right > 0.5, confidence, 1 - confidence)
    return float(-np.log(np.clip(given, 1e-6, 1 - 1e-6)).mean())


def answer(comparison: Comparison, judged: Mapping[str, Judged], seed: int, domain: str | None = None) -> Answered:
    """The paired difference over the items that both were judged on, and over their seeds if there are several; with
    `domain` over the items of one."""
    one, two = (judged[line.name] for line in (comparison.first, comparison.second))
    wanted = one.items if domain is None else one.items[one.of_domain == one.names.index(domain)]
    items = np.intersect1d(wanted, two.items, assume_unique=True)
    first, second = (
        of.right[[pair[side] for pair in comparison.pairs]][:, np.isin(of.items, items)]
        for side, of in enumerate((one, two))
    )
    asked = comparison.first.name, comparison.second.name
    drawn = ids.seed_of(seed, "report", *asked, *([] if domain is None else [domain]))
    if len(first) > 1 and len(items):
        both, over = over_seeds_and_items(first - second, drawn), over_seeds(first - second)
        return Answered(comparison, both, len(items), None, len(first), over)
    if np.isin([first, second], (0.0, 1.0)).all():
        return Answered(comparison, paired_score(first[0], second[0]), len(items), mcnemar(first[0], second[0]))
    return Answered(comparison, paired_bootstrap(first[0], second[0], drawn), len(items), None)


def _metrics(
    judged: Mapping[str, Judged],
    answers: tuple[Answered, ...],
    lineage: Lineage,
    asked: _Evals,
    more: Mapping[str, Mapping[str, float]],
) -> Metrics:
    """A flat row of numbers per line; a number that does not exist is left out."""
    lines = {line.name: line for line in lineage.lines}
    metrics: dict[str, dict[str, float]] = {}
    for name, found in judged.items():
        line = lines[name]
        row: dict[str, float] = {
            "n": found.n,
            found.measure: found.accuracy.value,
            "low": found.accuracy.low,
            "high": found.accuracy.high,
            "ece": ece(found.bins),
            **({} if found.error is None else {"ece_low": found.error.low, "ece_high": found.error.high}),
            **(
                {} if found.nll is None or found.sharpness is None else {"nll": found.nll, "sharpness": found.sharpness}
            ),
            **{f"mean_{name}": value for name, value in found.means.items()},
            **_mean([more.get(e.name, {}) for e in line.members]),
        }
        if found.over is not None:
            row |= {"seeds": found.seeds, "sd_over_seeds": found.spread}
            row |= {"low_over_seeds": found.over.low, "high_over_seeds": found.over.high}
            row |= {f"of_{e.name}": float(r.mean()) for e, r in zip(line.members, found.right, strict=True)}
        for other in lines.values():
            if (
                {e.model for e in other.members} & {*lineage.teachers}
                and line.alike(other)
                and other.members[0].model not in {e.model for e in line.members}
                and other.name in judged
                and found.measure == "accuracy"
            ):
                pairs = lineage.pairs(line, other)
                shares = [asked.agreement(line.members[i].name, other.members[j].name) for i, j in pairs]
                row[f"agreement_with_{other.name}"] = sum(shares) / len(shares)
        for answered in answers:
            if answered.comparison.first.name == name:
                second = answered.comparison.second.name
                row[f"minus_{second}"] = answered.difference.value
                row[f"low_minus_{second}"] = answered.difference.low
                row[f"high_minus_{second}"] = answered.difference.high
                row[f"p_minus_{second}"] = math.nan if answered.corrected is None else answered.corrected
                row[f"claim_minus_{second}"] = float(answered.refused is None)
                if answered.over is not None:
                    row[f"seeds_minus_{second}"] = answered.seeds
                    row[f"low_over_seeds_minus_{second}"] = answered.over.low
                    row[f"high_over_seeds_minus_{second}"] = answered.over.high
        row |= {f"{found.measure}_{domain}": share for domain, share in found.domains.items()}
        metrics[name] = {key: round(value, DIGITS) for key, value in row.items() if not math.isnan(value)}
    return metrics


def intervals(row: Mapping[str, float], second: str) -> tuple[Interval, ...]:
    """The intervals of a difference as a row of `metrics.json` has them: one, or two where there are several seeds."""
    value = row[f"minus_{second}"]
    ends = [("low", "high"), ("low_over_seeds", "high_over_seeds")]
    return tuple(
        Interval(value, row[f"{low}_minus_{second}"], row[f"{high}_minus_{second}"])
        for low, high in ends
        if f"{low}_minus_{second}" in row
    )


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The means of the numbers that all rows have."""
    return {key: math.fsum(row[key] for row in rows) / len(rows) for key in rows[0] if all(key in row for row in rows)}
