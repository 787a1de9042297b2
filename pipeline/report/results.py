"""What the evaluations say: the numbers of `metrics.json`, the verdicts, calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.report.arms import Comparison, Lineage, comparisons
from pipeline.report.statistics import (
    Bin,
    Interval,
    Verdict,
    calibration_bins,
    ece,
    mcnemar,
    over_seeds,
    over_seeds_and_items,
    paired_bootstrap,
    paired_score,
    verdict,
    wilson,
)
from pipeline.tables import ids
from pipeline.tables.parquet import Scan

COLUMNS = ("item_id", "domain", "metric", "confidence", "prediction")
# More than anyone is shown: who rounds these for people, rounds them as the report does.
DIGITS = 6

Metrics = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Judged:
    """One line of the results: its items that have a metric, how sure the model was, every short answer.

    `right` is [S, N]: a row per member, in the order of `items`, the ids of what all of them were judged on; the other
    items, for example those without a reference, are `left_out`.
    """

    items: tuple[str, ...]
    of_domain: tuple[str, ...]
    right: np.ndarray
    accuracy: Interval
    over: Interval | None
    domains: Mapping[str, float]
    bins: tuple[Bin, ...]
    predictions: tuple[Mapping[str, str | None], ...]
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


@dataclass(frozen=True)
class Answered:
    """A comparison with its answer; `p` is null where a metric is not 0 or 1, and where there are several seeds.

    Of several seeds `difference` has the interval over seeds and items, and `over` the one over seeds alone.
    """

    comparison: Comparison
    difference: Interval
    n: int
    p: float | None
    seeds: int = 1
    over: Interval | None = None

    @property
    def intervals(self) -> tuple[Interval, ...]:
        return (self.difference,) if self.over is None else (self.difference, self.over)

    @property
    def verdict(self) -> Verdict:
        return verdict(*self.intervals)


@dataclass(frozen=True)
class Results:
    """All that follows from the tables of `evals`, by the name of a line.

    `apart` are comparisons of lines that have no judged item in common.
    """

    judged: Mapping[str, Judged]
    answers: tuple[Answered, ...]
    metrics: Metrics
    apart: tuple[Comparison, ...] = ()


def judge(evals: Scan, lineage: Lineage, seed: int, more: Mapping[str, Mapping[str, float]]) -> Results:
    """Every line judged, every comparison answered, and both as numbers; `more` holds other numbers of an
    evaluation, which need no reference answers."""
    tables = {folder.name: Scan(evals.table, (folder,)).read(COLUMNS) for folder in evals.folders}
    judged = {
        line.name: _judge([tables[e.name] for e in line.members], ids.seed_of(seed, "report", line.name))
        for line in lineage.lines
        if all(e.name in tables for e in line.members)
    }
    answers = tuple(
        answer(comparison, judged, seed)
        for comparison in comparisons(lineage)
        if {comparison.first.name, comparison.second.name} <= judged.keys()
    )
    apart = tuple(a.comparison for a in answers if not a.n)
    answers = tuple(a for a in answers if a.n)
    return Results(judged, answers, _metrics(judged, answers, lineage, more), apart)


def _judge(tables: Sequence[pa.Table], seed: int) -> Judged:
    members = [{row["item_id"]: row for row in table.to_pylist()} for table in tables]
    rows = [{item: row for item, row in of.items() if row["metric"] is not None} for of in members]
    items = sorted(set.intersection(*(set(of) for of in rows)))
    right = np.array([[of[item]["metric"] for item in items] for of in rows], np.float64)
    of_domain = [rows[0][item]["domain"] for item in items]
    names = np.array(of_domain, object)
    sure = [(row["confidence"], row["metric"]) for of in rows for row in of.values() if row["confidence"] is not None]
    several = len(rows) > 1 and bool(items)
    return Judged(
        items=tuple(items),
        of_domain=tuple(of_domain),
        right=right,
        accuracy=over_seeds_and_items(right, seed) if several else wilson(math.fsum(right[0]), len(items)),
        over=over_seeds(right) if several else None,
        domains={domain: float(right[:, names == domain].mean()) for domain in sorted(set(of_domain))},
        bins=tuple(calibration_bins([c for c, _ in sure], [m for _, m in sure])),
        predictions=tuple({item: row["prediction"] for item, row in of.items()} for of in members),
        left_out=len(set().union(*members)) - len(items),
    )


def answer(comparison: Comparison, judged: Mapping[str, Judged], seed: int, domain: str | None = None) -> Answered:
    """The paired difference over the items that both were judged on, and over their seeds if there are several; with
    `domain` over the items of one."""
    one, two = (judged[line.name] for line in (comparison.first, comparison.second))
    wanted = {item for item, of in zip(one.items, one.of_domain, strict=True) if domain in (None, of)}
    items = sorted(wanted & {*two.items})
    first, second = (
        of.right[[pair[side] for pair in comparison.pairs]][:, np.isin(of.items, items)]
        for side, of in enumerate((one, two))
    )
    asked = comparison.first.name, comparison.second.name
    drawn = ids.seed_of(seed, "report", *asked, *([] if domain is None else [domain]))
    if len(first) > 1 and items:
        both, over = over_seeds_and_items(first - second, drawn), over_seeds(first - second)
        return Answered(comparison, both, len(items), None, len(first), over)
    if np.isin([first, second], (0.0, 1.0)).all():
        return Answered(comparison, paired_score(first[0], second[0]), len(items), mcnemar(first[0], second[0]))
    return Answered(comparison, paired_bootstrap(first[0], second[0], drawn), len(items), None)


def _metrics(
    judged: Mapping[str, Judged],
    answers: tuple[Answered, ...],
    lineage: Lineage,
    more: Mapping[str, Mapping[str, float]],
) -> Metrics:
    """A flat row of numbers per line; a number that does not exist is left out."""
    lines = {line.name: line for line in lineage.lines}
    metrics: dict[str, dict[str, float]] = {}
    for name, found in judged.items():
        line = lines[name]
        row: dict[str, float] = {
            "n": found.n,
            "accuracy": found.accuracy.value,
            "low": found.accuracy.low,
            "high": found.accuracy.high,
            "ece": ece(found.bins),
            **_mean([more.get(e.name, {}) for e in line.members]),
        }
        if found.over is not None:
            row |= {"seeds": found.seeds, "sd_over_seeds": found.spread}
            row |= {"low_over_seeds": found.over.low, "high_over_seeds": found.over.high}
            row |= {f"of_{e.name}": float(r.mean()) for e, r in zip(line.members, found.right, strict=True)}
        for other in lines.values():
            if (
                {e.model for e in other.members} & {*lineage.teachers}
                and other.pool == line.pool
                and other.members[0].model not in {e.model for e in line.members}
                and other.name in judged
            ):
                pairs = lineage.pairs(line, other)
                row[f"agreement_with_{other.name}"] = _agreement(found, judged[other.name], pairs)
        for answered in answers:
            if answered.comparison.first.name == name:
                second = answered.comparison.second.name
                row[f"minus_{second}"] = answered.difference.value
                row[f"low_minus_{second}"] = answered.difference.low
                row[f"high_minus_{second}"] = answered.difference.high
                if answered.over is not None:
                    row[f"seeds_minus_{second}"] = answered.seeds
                    row[f"low_over_seeds_minus_{second}"] = answered.over.low
                    row[f"high_over_seeds_minus_{second}"] = answered.over.high
        row |= {f"accuracy_{domain}": share for domain, share in found.domains.items()}
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


def _agreement(student: Judged, teacher: Judged, pairs: Sequence[tuple[int, int]]) -> float:
    """The share of items on which both gave the same short answer; an item without one is a disagreement."""
    same: list[bool] = []
    for i, j in pairs:
        own, theirs = student.predictions[i], teacher.predictions[j]
        same += [own[item] is not None and own[item] == theirs[item] for item in own.keys() & theirs.keys()]
    return sum(same) / len(same) if same else math.nan
