"""The page: every fact of a run drawn into one HTML file that needs nothing else.

It holds no script, and its policy forbids all: what a model wrote is text there, whatever it says.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.display import VISIBLE, duration
from pipeline.report import charts, facts
from pipeline.report import curves as learning
from pipeline.report.arms import Lineage
from pipeline.report.charts import MOST_DOMAINS
from pipeline.report.claims import Lack, decides
from pipeline.report.clouds import Cloud
from pipeline.report.elicited import Elicited
from pipeline.report.facts import Coverage
from pipeline.report.hacking import Watched
from pipeline.report.made import Made
from pipeline.report.pareto import Point
from pipeline.report.results import Answered, Judged, Results, answer, scales
from pipeline.report.rounds import History
from pipeline.report.thumbnails import SIDE, Thumbnail
from pipeline.report.transparency import Item

TEMPLATES = Path(__file__).parent / "templates"
LONGEST = 400

# What the reasons of `select` mean.
REASONS = {
    "other_entry": "of an entry that it does not choose from",
    "where": "its rule does not hold",
    "truncated": "cut off at the token limit",
    "failed": "the request failed",
    "another_answer": "another answer to the same prompt was kept",
    "over_budget": "the budget was used up",
}


@dataclass(frozen=True)
class Gaps:
    """A table of gaps, with the models that it compares."""

    name: str
    teacher: str
    student: str
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Found:
    """All that the page tells, each as the module that found it gives it."""

    lineage: Lineage
    results: Results
    funnel: Sequence[facts.Step]
    reasons: Sequence[facts.Reason]
    gaps: Sequence[Gaps]
    agreement: Sequence[facts.Agreement]
    coverage: Sequence[Coverage]
    curves: Sequence[learning.Curve]
    paid: Sequence[facts.Paid]
    costs: Sequence[facts.Cost]
    checked: Sequence[facts.Checked]
    made: Made
    lacks: Sequence[Lack]
    hacking: Sequence[Watched]
    pareto: Sequence[Point]
    rounds: Sequence[History]
    disagreements: Sequence[facts.Disagreement]
    clouds: Sequence[Cloud]
    elicited: Sequence[Elicited]
    index: Sequence[Item]
    thumbnails: Sequence[Thumbnail]
    seed: int


def render(found: Found) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=count, percent=percent, points=points, decimals=decimals, signed=signed, short=short, duration=duration,
        bar=bar, words=words, decides=decides,
    )  # fmt: skip
    wanted: list[charts.Chart] = []

    def place(chart: charts.Chart) -> Markup:
        # No text of a user can hold this: theirs are escaped.
        wanted.append(chart)
        return Markup(f"<chart {len(wanted) - 1}>")

    environment.filters["drawn"] = place
    style = (TEMPLATES / "report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    best_first = sorted(
        found.results.judged.items(), key=lambda pair: (-pair[1].accuracy.value if pair[1].n else 1, pair[0])
    )
    page = environment.get_template("report.html").render(
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'",
        found=found,
        results=found.results,
        arms=found.lineage.arms,
        judged=dict(best_first),
        about=about(found),
        effort=efforts(found),
        headline=headline(found.results.answers),
        domains=domains(found),
        all_domains=sorted(sizes(found.results.judged)),
        by_domain=by_domain(found),
        funnel=grouped(found.funnel, "group"),
        largest={
            key: max([1, *(getattr(s, key) or 0 for s in found.funnel)]) for key in ("prompts", "answers", "tokens")
        },
        reasons=grouped(found.reasons, "where"),
        times=grouped(found.costs, "stage"),
        others=grouped_lines(found),
        scales=scales(),
        index=grouped(found.index, "group"),
        thumbnails=grouped(found.thumbnails, "pool"),
        side=SIDE,
        charts=charts,
        coverage_domains=coverage_domains(found.coverage),
        all_coverage_domains={domain for coverage in found.coverage for domain in coverage.tokens},
        most_domains=MOST_DOMAINS,
        columns=list(dict.fromkeys(key for row in found.results.metrics.values() for key in row)),
    )
    pictures = charts.drawn(wanted)
    return re.sub(r"<chart (\d+)>", lambda match: pictures[int(match[1])], page).translate(VISIBLE)


def headline(answers: Sequence[Answered]) -> list[Answered]:
    """The comparisons that the page leads with: against controls, or what there is if there is no control."""
    first = [a for a in answers if a.comparison.kind == "control"]
    return first or list(answers[:3])


def efforts(found: Found) -> dict[str, str]:
    """Comparison, as the names of its two lines -> what both were trained for, in words; none for what was not."""
    each, told = learning.effort(found.curves), {}
    for compared in found.results.answers:
        lines = (compared.comparison.first, compared.comparison.second)
        both = [each[line.members[0].model] for line in lines if line.members[0].model in each]
        if len(both) == 2:
            words = " against ".join(f"{e.steps:,} steps, {e.tokens:,} tokens" for e in both)
            told[f"{lines[0].name} {lines[1].name}"] = words
    return told


def about(found: Found) -> dict[str, str]:
    """Line of the results -> where its model comes from, in a few words."""
    lineage, told = found.lineage, {}
    for line in lineage.lines:
        arm = lineage.arms.get(line.members[0].model)
        if arm is not None:
            selections = ", ".join(name.rpartition("/")[2] for name in arm.selections)
            told[line.name] = f"{arm.base} trained with {' + '.join(arm.objectives)} on {selections}"
            if len(line.members) > 1:
                seeds = ", ".join(str(lineage.arms[e.model].seed) for e in line.members)
                again = {lineage.arms[e.model].selections for e in line.members} != {arm.selections}
                told[line.name] += f"{', and so on' if again else ''}; {len(line.members)} seeds: {seeds}"
        elif line.members[0].model in lineage.teachers:
            told[line.name] = "teaches"
        else:
            bases = {a.base for a in lineage.arms.values()}
            told[line.name] = "what the students start from" if line.members[0].model in bases else "as acquired"
    return told


def domains(found: Found) -> list[str]:
    """The domains that are shown, those with most items first to be kept, in the order of their names."""
    items = sizes(found.results.judged)
    return sorted(sorted(items, key=lambda d: (-items[d], d))[:MOST_DOMAINS])


def sizes(judged: Mapping[str, Judged]) -> Counter[str]:
    """Domain -> the judged items of all lines."""
    found: Counter[str] = Counter()
    for one in judged.values():
        found.update(one.sizes)
    return found


def by_domain(found: Found) -> list[tuple[Answered, list[tuple[str, Answered]]]]:
    """Every comparison with its answer in each of the domains that are shown; none where there is one domain."""
    shown = domains(found)
    if len(shown) < 2:
        return []
    asked = [
        (a, [(domain, answer(a.comparison, found.results.judged, found.seed, domain)) for domain in shown])
        for a in found.results.answers
    ]
    return [(a, [(domain, inside) for domain, inside in of if inside.n]) for a, of in asked]


def coverage_domains(found: Sequence[Coverage]) -> list[str]:
    """The domains with most tokens, in the order of their names."""
    sizes: dict[str, int] = {}
    for coverage in found:
        for domain, tokens in coverage.tokens.items():
            sizes[domain] = max(sizes.get(domain, 0), tokens)
    return sorted(sorted(sizes, key=lambda d: (-sizes[d], d))[:MOST_DOMAINS])


def grouped_lines(found: Found) -> dict[str, dict[str, Judged]]:
    """Measure -> the lines of it, by name."""
    by: dict[str, dict[str, Judged]] = {}
    for name, one in found.results.others.items():
        by.setdefault(one.measure, {})[name] = one
    return by


def grouped(items: Sequence[Any], key: str) -> dict[str, list[Any]]:
    """Items under their headings, both in the order in which they come."""
    found: dict[str, list[Any]] = {}
    for item in items:
        found.setdefault(getattr(item, key), []).append(item)
    return found


def count(value: float | None) -> str:
    """A whole number with separators: 56,696."""
    return "\u2013" if value is None else f"{value:,.0f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage: 70.3 %."""
    return "\u2013" if value is None else f"{100 * value:.{digits}f}\u202f%"


def decimals(value: float | None, digits: int = 3) -> str:
    """A number with this many decimals; a dash if there is none."""
    return "\u2013" if value is None or value != value else f"{value:.{digits}f}"


def points(value: float) -> str:
    """A share in percentage points: 70.3."""
    return f"{100 * value:.1f}"


def signed(value: float) -> str:
    """A difference in percentage points with its sign: +10.2, with a true minus."""
    return f"{100 * value:+.1f}".replace("-", "\u2212")


def short(text: str, longest: int = LONGEST) -> str:
    """The beginning of a long text, and how much was left out."""
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest:,} more characters)"


def words(name: str) -> str:
    """A name of the tables for people."""
    return REASONS.get(name) or name.replace("_", " ")


def bar(share: float | None) -> Markup:
    """A bar behind a number of a table; it says nothing that the number does not."""
    width = 100 * min(max(share or 0.0, 0.0), 1.0)
    return Markup(
        f'<svg class="bar" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true"><rect width="{width:.2f}" '
        f'height="1"/></svg>'
    )
