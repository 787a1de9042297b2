"""What the evaluations say: the numbers of `metrics.json`, the verdicts, calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.report.arms import Comparison, Lineage, comparisons
from pipeline.report.statistics import Bin, Interval, calibration_bins, ece, mcnemar, paired_bootstrap, verdict, wilson
from pipeline.tables import ids
from pipeline.tables.parquet import Scan

COLUMNS = ("item_id", "domain", "metric", "confidence", "prediction")
# More than anyone is shown: who rounds these for people, rounds them as the report does.
DIGITS = 6

Metrics = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Judged:
    """One evaluation: its items that have a metric, by id; how sure the model was; every short answer."""

    rows: Mapping[str, Mapping[str, object]]
    accuracy: Interval
    domains: Mapping[str, Interval]
    bins: tuple[Bin, ...]
    predictions: Mapping[str, str | None]

    @property
    def n(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Answered:
    """A comparison with its answer; `p` is null where a metric is not 0 or 1."""

    comparison: Comparison
    difference: Interval
    n: int
    p: float | None

    @property
    def verdict(self) -> str:
        return verdict(self.difference)


@dataclass(frozen=True)
class Results:
    """All that follows from the tables of `evals`, by the evaluation's name."""

    judged: Mapping[str, Judged]
    answers: tuple[Answered, ...]
    metrics: Metrics


def judge(evals: Scan, lineage: Lineage, seed: int, more: Mapping[str, Mapping[str, float]]) -> Results:
    """Every evaluation judged, every comparison answered, and both as numbers; `more` holds other numbers of an
    evaluation, which need no reference answers."""
    judged = {folder.name: _judge(Scan(evals.table, (folder,)).read(COLUMNS)) for folder in evals.folders}
    answers = tuple(
        answer(comparison, judged, seed)
        for comparison in comparisons(lineage)
        if {comparison.first.name, comparison.second.name} <= judged.keys()
    )
    answers = tuple(a for a in answers if a.n)
    return Results(judged, answers, _metrics(judged, answers, lineage, more))


def _judge(table: pa.Table) -> Judged:
    items = {row["item_id"]: row for row in table.to_pylist()}
    rows = {item: row for item, row in items.items() if row["metric"] is not None}
    by_domain: dict[str, list[float]] = {}
    for row in rows.values():
        by_domain.setdefault(row["domain"], []).append(row["metric"])
    sure = [(row["confidence"], row["metric"]) for row in rows.values() if row["confidence"] is not None]
    return Judged(
        rows=rows,
        accuracy=_share([row["metric"] for row in rows.values()]),
        domains={domain: _share(values) for domain, values in sorted(by_domain.items())},
        bins=tuple(calibration_bins([c for c, _ in sure], [m for _, m in sure])),
        predictions={item: row["prediction"] for item, row in items.items()},
    )


def _share(values: list[float]) -> Interval:
    return wilson(math.fsum(values), len(values))


def answer(comparison: Comparison, judged: Mapping[str, Judged], seed: int) -> Answered:
    """The paired difference over the items that both were judged on."""
    one, two = (judged[e.name].rows for e in (comparison.first, comparison.second))
    items = sorted(one.keys() & two.keys())
    first, second = (np.array([rows[i]["metric"] for i in items], np.float64) for rows in (one, two))
    names = (comparison.first.name, comparison.second.name)
    difference = paired_bootstrap(first, second, ids.seed_of(seed, "report", *names))
    binary = bool(np.isin([first, second], (0.0, 1.0)).all())
    return Answered(comparison, difference, len(items), mcnemar(first, second) if binary else None)


def _metrics(
    judged: Mapping[str, Judged],
    answers: tuple[Answered, ...],
    lineage: Lineage,
    more: Mapping[str, Mapping[str, float]],
) -> Metrics:
    """A flat row of numbers per evaluation; a number that does not exist is left out."""
    of_model = {e.name: e for e in lineage.evaluations}
    metrics: dict[str, dict[str, float]] = {}
    for name, found in judged.items():
        row: dict[str, float] = {
            "n": found.n,
            "accuracy": found.accuracy.value,
            "low": found.accuracy.low,
            "high": found.accuracy.high,
            "ece": ece(found.bins),
            **more.get(name, {}),
        }
        for teacher in lineage.evaluations:
            if (
                teacher.model in lineage.teachers
                and teacher.pool == of_model[name].pool
                and teacher.model != of_model[name].model
                and teacher.name in judged
            ):
                row[f"agreement_with_{teacher.name}"] = _agreement(found, judged[teacher.name])
        for answered in answers:
            if answered.comparison.first.name == name:
                second = answered.comparison.second.name
                row[f"minus_{second}"] = answered.difference.value
                row[f"low_minus_{second}"] = answered.difference.low
                row[f"high_minus_{second}"] = answered.difference.high
        for domain, share in found.domains.items():
            row[f"accuracy_{domain}"] = share.value
        metrics[name] = {key: round(value, DIGITS) for key, value in row.items() if not math.isnan(value)}
    return metrics


def _agreement(student: Judged, teacher: Judged) -> float:
    """The share of items on which both gave the same short answer; an item without one is a disagreement."""
    items = student.predictions.keys() & teacher.predictions.keys()
    same = [student.predictions[i] is not None and student.predictions[i] == teacher.predictions[i] for i in items]
    return sum(same) / len(same) if same else math.nan
