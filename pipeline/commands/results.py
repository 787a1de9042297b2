"""Results: the result of the last run as a table, and where its time and money went."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.commands.screen import show
from pipeline.contracts import RESPONSES
from pipeline.core.workspace import DATA
from pipeline.errors import Refused
from pipeline.report import arms, facts
from pipeline.report.results import Metrics, intervals
from pipeline.report.statistics import LEVEL, verdict
from pipeline.tables.parquet import Scan

ABOUT = "the result of the last run, and where its time and money went"


def result_table(data: Path) -> str:
    """The result for a terminal, from `metrics.json`: a line per model, a line per verdict, where the page is."""
    reports = data / "reports"
    metrics: Metrics = json.loads((reports / "metrics.json").read_text("utf-8"))
    width = max([len(name) for name in metrics] + [5])
    several = any("seeds" in row for row in metrics.values())
    head = f"{'seeds':>5}  " if several else ""
    more = [name for name, row in metrics.items() if "accuracy" not in row and "low" in row]
    lines = [f"{'model':<{width}}  {'accuracy':>8}  {'95 % interval':>14}  {head}{'items':>6}  {'ECE':>5}"]
    told = []
    for name, row in sorted(metrics.items(), key=lambda pair: (pair[1].get("accuracy", 0), pair[0])):
        if name in more:
            continue
        if "accuracy" not in row:
            shown = [f"{key} {row[key]:g}" for key in row if key.startswith(("agreement_with_", "nll_of_"))]
            lines.append(f"{name:<{width}}  no item has a reference answer" + "".join(f", {text}" for text in shown))
            continue
        error = f"{row['ece']:.3f}" if "ece" in row else "-"
        interval = f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"
        seeds = f"{row.get('seeds', '-'):>5}  " if several else ""
        figures = f"{100 * row['accuracy']:>8.1f}  {interval:>14}  {seeds}{row['n']:>6}  {error:>5}"
        lines.append(f"{name:<{width}}  {figures}")
        told += [_difference_line(name, row, key.removeprefix("minus_")) for key in row if key.startswith("minus_")]
    return "\n".join(
        [
            *lines,
            "",
            *(told or ["no two models answer a question"]),
            *_others(more),
            "",
            f"report: {reports / 'report.html'}",
        ]
    )


def _others(names: Sequence[str]) -> list[str]:
    """What else was measured, in a line."""
    return [f"other measures, on the page: {', '.join(names)}"] if names else []


def _difference_line(name: str, row: Mapping[str, float], second: str) -> str:
    """A comparison in one line; of several seeds with its interval over seeds too."""
    found = intervals(row, second)
    ends = "; over seeds ".join(f"{100 * i.low:+.1f} to {100 * i.high:+.1f}" for i in found)
    seeds = f", {row[f'seeds_minus_{second}']} seeds" if len(found) > 1 else ""
    said = "no claim" if row.get(f"claim_minus_{second}", 1) == 0 else verdict(*found)
    if row.get(f"p_minus_{second}", 0) > 1 - LEVEL:
        said = "inconclusive"
    return f"{name} against {second}: {said}, {100 * found[0].value:+.1f} points ({ends}{seeds})"


def arguments(command: argparse.ArgumentParser) -> None:
    """Nothing may follow `results`."""


def run() -> None:
    """Print the result of the last run, and where its time and money went."""
    if not (DATA / "reports" / "metrics.json").exists():
        raise Refused(f"{DATA}/reports holds no metrics.json; `dvc repro` makes it")
    show(result_table(DATA).split("\n"))
    lineage = arms.read(DATA)
    show(f"ingest@{name}: {n} of {of} rows were set aside" for name, (n, of) in facts.set_aside(lineage, DATA).items())
    costs = facts.costs(lineage, DATA)
    if costs:
        longest = sorted(costs, key=lambda cost: -cost.wall_s)[:5]
        total, cpu = sum(cost.wall_s for cost in costs), sum(cost.cpu_s for cost in costs)
        show([f"time: {total:.0f} s in {len(costs)} instances ({cpu:.0f} s of CPU), the longest of them"])
        show(f"  {cost.wall_s:>7.1f} s  {cost.stage}@{cost.instance}" for cost in longest)
    show(_money(lineage))


def _money(lineage: arms.Lineage) -> list[str]:
    """What all answers took in tokens, and in dollars where prices are known; the dearest entries first."""
    folders = [folder for plan in lineage.of("generate") if (folder := DATA / plan["output"]).is_dir()]
    paid = facts.paid(lineage, facts.Tables.of(DATA, [Scan(RESPONSES, tuple(folders))]))
    tokens = {p.entry: p.prompt_tokens + p.completion_tokens for p in paid}
    dearest = sorted(paid, key=lambda p: (-(p.cost_usd or 0), -tokens[p.entry]))[:5]
    known = [p.cost_usd for p in paid if p.cost_usd is not None]
    dollars = f"${sum(known):,.2f}" if known else "no price is known"
    head = f"money: {dollars}; {sum(tokens.values()):,} tokens in {sum(p.requests for p in paid):,} answers"
    costs = ("" if p.cost_usd is None else f"${p.cost_usd:,.2f}" for p in dearest)
    rows = [
        f"  {cost:>9}  generate@{p.entry}, {tokens[p.entry]:,} tokens" for cost, p in zip(costs, dearest, strict=True)
    ]
    return [head, *rows] if paid else []
