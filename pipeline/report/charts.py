"""Charts: Vega-Lite, drawn here to static SVG by `vl-convert`.

They are drawn in a child process, because a library that aborts over a text would take the report with it; where it
does, a sentence stands in the chart's place. Every text in them is reduced to printable characters first.

Static, so that the page needs no script and its content security policy can forbid all of them; a chart is some ten
kilobytes, where a script that draws it would be five megabytes. Colours are names of the page's style sheet, so one
drawing serves light and dark.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pipeline.bounded import Ended, Limits, bounded
from pipeline.core.methods import lazy
from pipeline.display import label
from pipeline.report.clouds import Cloud
from pipeline.report.curves import Curve
from pipeline.report.facts import Agreement, Coverage
from pipeline.report.hacking import Watched
from pipeline.report.pareto import Point
from pipeline.report.results import Answered, Judged
from pipeline.report.rounds import History

if TYPE_CHECKING:
    import vl_convert
else:
    vl_convert = lazy("vl_convert")


Spec = dict[str, Any]
Rows = list[dict[str, Any]]

PATIENCE = Limits(seconds=120)

VERSION = "6.4"
WIDTH = 820
ROW = 26
MOST_DOMAINS = 40
# Labels are measured at 14 pixels and drawn at 12 (report.css): the reader's font may be wider than the one here.
FONT = 14
SERIES = [f"var(--c{i})" for i in range(1, 9)]
# What a loss was seen on.
ROWS = ("rows that are trained on", "rows that are held out")
VERDICTS = {
    "helps": "var(--good)",
    "inconclusive": "var(--muted)",
    "does not help": "var(--bad)",
    "no claim": "var(--c6)",
}
CONFIG: Spec = {
    "background": None,
    "font": "sans-serif",
    "padding": 2,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": FONT, "titleFontSize": FONT,
        "titleFontWeight": "normal", "gridColor": "var(--line)", "domain": False, "tickColor": "var(--line)",
        "labelLimit": 240, "labelPadding": 6, "titlePadding": 8, "labelFlush": False,
    },
    "header": {"labelColor": "currentColor", "labelFontSize": FONT, "title": None, "labelFontWeight": 600},
    "legend": {
        "labelColor": "currentColor", "labelFontSize": FONT, "title": None, "orient": "top", "symbolSize": 90,
        "symbolOpacity": 1, "labelLimit": 260, "columnPadding": 14, "offset": 12,
    },
    "text": {"color": "currentColor", "fontSize": FONT},
    "rule": {"color": "currentColor"},
}  # fmt: skip
FIT: Spec = {"width": WIDTH, "autosize": {"type": "fit-x", "contains": "padding"}}


@dataclass(frozen=True)
class Chart:
    """What is to be drawn, and the title by which a screen reader announces it."""

    spec: Spec
    title: str


def draw(spec: Spec, rows: Rows, title: str) -> Chart:
    """A chart of these rows, with printable texts."""
    return Chart(_printable({**spec, "data": {"values": rows}, "config": CONFIG}), title)


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return label(value)
    if isinstance(value, dict):
        return {key: _printable(inner) for key, inner in value.items()}
    return [_printable(inner) for inner in value] if isinstance(value, list | tuple) else value


def drawn(charts: Sequence[Chart]) -> list[Markup]:
    """Every chart as an SVG element; where one cannot be drawn, a sentence that says so."""
    try:
        return bounded(lambda: [_svg(chart) for chart in charts], PATIENCE)
    except (Ended, ValueError):
        # Whose fault it was is found by drawing each alone.
        return [_alone(chart) for chart in charts]


def _alone(chart: Chart) -> Markup:
    try:
        return bounded(lambda: _svg(chart), PATIENCE)
    except (Ended, ValueError) as error:
        text = (
            "<p><strong>This chart ({}) could not be drawn: {}.</strong> Nothing else of this page is touched; the "
            "numbers are in <code>metrics.json</code> and in the tables.</p>"
        )
        return Markup(text).format(chart.title, label(str(error)))


def _svg(chart: Chart) -> Markup:
    svg = vl_convert.vegalite_to_svg(chart.spec, vl_version=VERSION, allowed_base_urls=[])
    # Vega escapes what it writes into text and attributes; the title is ours to escape.
    return Markup(svg.replace("<svg ", Markup('<svg role="img" aria-label="{}" ').format(chart.title), 1))


def plots_script(kept: Path) -> str:
    """The scripts of DVC's page of plots. The library gathers them for seconds, so they are kept, a file a version.

    They are gathered in a child too: what the library starts would not outlive a fork.
    """
    file = kept / f"vega_{version('vl-convert-python')}.js"
    if not file.exists():
        script = bounded(lambda: vl_convert.javascript_bundle(None), PATIENCE)  # type: ignore[arg-type]  # its stub errs
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=kept, delete=False) as scratch:
            scratch.write(script)
        Path(scratch.name).rename(file)
    return file.read_text("utf-8")


def differences(answers: Sequence[Answered]) -> Chart:
    """Every difference with its interval, the wider of two, beside 0."""
    rows = [
        {"pair": f"{a.comparison.first.name} \u2212 {a.comparison.second.name}", "value": 100 * a.difference.value,
         "low": 100 * min(i.low for i in a.intervals), "high": 100 * max(i.high for i in a.intervals),
         "verdict": a.verdict}
        for a in answers
    ]  # fmt: skip
    y = {"field": "pair", "type": "nominal", "sort": None, "title": None}
    x_title = "difference in percentage points, with its 95 % interval"
    colour = {
        "field": "verdict",
        "type": "nominal",
        "scale": {"domain": list(VERDICTS), "range": list(VERDICTS.values())},
    }
    ends = {"y": y, "x": _number("low", x_title), "x2": {"field": "high"}, "color": colour}
    layers = [
        {"mark": {"type": "rule", "strokeDash": [3, 3], "opacity": 0.6}, "encoding": {"x": {"datum": 0}}},
        {"mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.55}, "encoding": ends},
        {"mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
         "encoding": {"y": y, "x": _number("value", x_title), "color": colour}},
    ]  # fmt: skip
    return draw({**FIT, "height": {"step": ROW}, "layer": layers}, rows, "differences between models")


def domains(judged: Mapping[str, Judged], shown: Sequence[str]) -> Chart:
    """Accuracy per model and domain as a field of tiles."""
    rows = [
        {"model": name, "domain": domain, "accuracy": found.domains[domain]}
        for name, found in judged.items()
        for domain in shown
        if domain in found.domains
    ]
    labels: Spec = {"labelAngle": -90} if len(shown) > 12 else {"labelAngle": 0, "labelLimit": 640 // len(shown)}
    bare = {"grid": False, "ticks": False}
    x = {
        "field": "domain",
        "type": "nominal",
        "sort": list(shown),
        "title": None,
        "axis": {"orient": "top", **bare, **labels},
    }
    y = {"field": "model", "type": "nominal", "sort": list(judged), "title": None, "axis": bare}
    tile = {"type": "rect", "color": "var(--c1)", "stroke": "var(--paper)", "strokeWidth": 2}
    depth = {
        "field": "accuracy",
        "type": "quantitative",
        "scale": {"domain": [0, 1], "range": [0.03, 0.6]},
        "legend": None,
    }
    layers: list[Spec] = [{"mark": tile, "encoding": {"x": x, "y": y, "fillOpacity": depth}}]
    if len(shown) <= 12:
        text = {"field": "accuracy", "type": "quantitative", "format": ".0%"}
        layers.append({"mark": "text", "encoding": {"x": x, "y": y, "text": text}})
    return draw({**FIT, "height": {"step": ROW + 6}, "layer": layers}, rows, "accuracy per domain")


def gaps(rows: Sequence[Mapping[str, Any]], student: str, teacher: str) -> Chart:
    """Per domain how much the teacher and the student solve, and the distance between."""
    points = [
        {"domain": row["domain"], "who": name, "share": row[key]}
        for row in rows
        for name, key in ((student, "student_pass"), (teacher, "teacher_pass"))
        if row[key] is not None
    ]
    y = {"field": "domain", "type": "nominal", "sort": None, "title": None}
    x = _share_axis("share", "share of answers that are solved")
    x["scale"] = {"domain": [0, 1]}
    layers = [
        {"mark": {"type": "line", "color": "var(--line)", "strokeWidth": 4},
         "encoding": {"y": y, "x": x, "detail": {"field": "domain", "type": "nominal"}}},
        {"mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
         "encoding": {"y": y, "x": x, "color": _series("who", [student, teacher])}},
    ]  # fmt: skip
    return draw({**FIT, "height": {"step": ROW}, "layer": layers}, points, "teacher and student per domain")


def agreement(found: Agreement) -> Chart:
    """How many answers stand at each level of agreement, and how many of them are right."""
    kinds = {"right": "var(--good)", "wrong": "var(--bad)", "not judged": "var(--muted)"}
    rows = [
        {"level": round(level.agreement, 4), "kind": kind, "order": i, "n": n}
        for level in reversed(found.levels)
        for i, (kind, n) in enumerate(
            zip(kinds, (level.right, level.wrong, level.n - level.right - level.wrong), strict=True)
        )
        if n
    ]
    present = [kind for kind in kinds if any(row["kind"] == kind for row in rows)]
    encoding = {
        "x": {"field": "level", "type": "ordinal", "title": "share of the samples that give the same answer",
              "axis": {"labelAngle": 0, "grid": False, "format": ".3~g"}},
        "y": {"field": "n", "type": "quantitative", "title": "answers", "axis": {"tickCount": 5, "format": ",.0f"}},
        "color": {"field": "kind", "type": "nominal",
                  "scale": {"domain": present, "range": [kinds[kind] for kind in present]}},
        "order": {"field": "order", "type": "quantitative"},
    }  # fmt: skip
    mark = {"type": "bar", "opacity": 0.85}
    return draw({**FIT, "height": 200, "mark": mark, "encoding": encoding}, rows, "distribution of agreement")


def coverage(found: Sequence[Coverage], shown: Sequence[str]) -> Chart:
    """Each domain's share of the tokens: of the candidates and of every selection."""
    names = [c.name for c in found]
    rows = [{"domain": d, "of": c.name, "share": c.shares.get(d, 0.0)} for c in found for d in shown]
    encoding = {
        "y": {"field": "domain", "type": "nominal", "sort": list(shown), "title": None},
        "x": _share_axis("share", "share of the tokens"),
        "yOffset": {"field": "of", "type": "nominal", "sort": names},
        "color": _series("of", names),
    }
    step = {"step": max(7, 24 // len(names)), "for": "offset"}
    mark = {"type": "bar", "opacity": 0.9}
    return draw({**FIT, "height": step, "mark": mark, "encoding": encoding}, rows, "domains of the selections")


def losses(found: Sequence[Curve]) -> Chart:
    """One panel per objective, because losses of different objectives cannot be compared; held-out rows are dashed."""
    rows = [
        {"model": c.model, "objective": c.objective, "on": on, "step": step, "loss": loss}
        for c in found
        for on, points in zip(ROWS, (c.drawn, c.held_out), strict=True)
        for step, loss in points
    ]
    objectives = sorted({c.objective for c in found})
    encoding = {
        "x": _number("step", "step"),
        "y": {
            "field": "loss",
            "type": "quantitative",
            "title": "loss",
            "scale": {"zero": False},
            "axis": {"tickCount": 5},
        },
        "color": _series("model", [c.model for c in found]),
    }
    line: Spec = {"mark": {"type": "line", "strokeWidth": 1.6}}
    panel: Spec = {"height": 200, "encoding": encoding, **line}
    if any(c.held_out for c in found):
        dash = {"field": "on", "type": "nominal", "scale": {"domain": list(ROWS), "range": [[1, 0], [5, 3]]}}
        looks = {
            "transform": [{"filter": {"field": "on", "equal": ROWS[1]}}],
            "mark": {"type": "point", "filled": True, "size": 24, "opacity": 1},
        }
        panel = {"height": 200, "encoding": encoding, "layer": [{**line, "encoding": {"strokeDash": dash}}, looks]}
    if len(objectives) == 1:
        return draw({**FIT, **panel}, rows, "loss curves")
    facet = {"field": "objective", "type": "nominal", "sort": objectives}
    spec = {
        "facet": facet,
        "columns": 2,
        "spec": {"width": WIDTH // 2 - 80, **panel},
        "resolve": {"scale": {"y": "independent"}},
    }
    return draw(spec, rows, "loss curves")


def hacking(found: Watched) -> Chart:
    """How near a student was to what it learns from, and how good it was, at every look."""
    rows = [
        {"step": look.step, "what": what, "value": value}
        for look in found.looks
        for what, value in (("held-out loss", look.proxy), ("right answers", look.golden))
    ]
    encoding = {"x": _number("step", "step"), "y": _number("value", ""), "color": _series("what", _LOOKED)}
    panel = {"width": WIDTH // 2 - 80, "height": 160, "mark": {"type": "line", "point": True}, "encoding": encoding}
    facet = {"field": "what", "type": "nominal", "sort": _LOOKED}
    spec = {"facet": facet, "columns": 2, "spec": panel, "resolve": {"scale": {"y": "independent"}}}
    return draw(spec, rows, f"held-out loss and right answers of {found.model} during training")


_LOOKED = ["held-out loss", "right answers"]


def rounds(found: Sequence[History]) -> Chart:
    """How good the student of every round is, with its interval."""
    rows = [
        {"name": h.name, "round": r.number, "accuracy": a.value, "low": a.low, "high": a.high}
        for h in found
        for r, a in ((r, r.accuracy) for r in h.rounds)
    ]
    x, y = _number("round", "round"), _share_axis("accuracy", "accuracy")
    colour = _series("name", [h.name for h in found])
    x["axis"], y["scale"] = {"tickMinStep": 1, "format": "d"}, {"zero": False}
    ends = {"x": x, "y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}, "color": colour}
    line = {"type": "line", "point": {"filled": True, "size": 40}}
    layers = [
        {"mark": line, "encoding": {"x": x, "y": y, "color": colour}},
        {"mark": {"type": "rule", "opacity": 0.45}, "encoding": ends},
    ]
    return draw({**FIT, "height": 200, "layer": layers}, rows, "accuracy of the student of every round")


def pareto(found: Sequence[Point]) -> Chart:
    """Quality beside the seconds of an answer."""
    rows = [
        {"model": p.model, "quality": p.quality, "seconds": p.costs["seconds"],
         "kind": "dominated" if p.dominated_by else "on the front"}
        for p in found
    ]  # fmt: skip
    x, y = _number("seconds", "seconds an answer (median)"), _share_axis("quality", "accuracy")
    y["scale"] = {"zero": False}
    kinds = ["on the front", "dominated"]
    colour = {"field": "kind", "type": "nominal", "scale": {"domain": kinds, "range": ["var(--c1)", "var(--muted)"]}}
    name = {"type": "text", "dx": 8, "align": "left"}
    layers = [
        {"mark": {"type": "point", "filled": True, "size": 90}, "encoding": {"x": x, "y": y, "color": colour}},
        {"mark": name, "encoding": {"x": x, "y": y, "text": {"field": "model"}}},
    ]
    return draw({**FIT, "height": 240, "layer": layers}, rows, "accuracy and seconds of every model")


def calibration(judged: Mapping[str, Judged]) -> Chart:
    """Per model how often answers of like confidence were right; on the diagonal is calibrated."""
    shown = {name: found for name, found in judged.items() if found.bins}
    rows = [
        {"model": name, "confidence": b.confidence, "accuracy": b.accuracy}
        for name, found in shown.items()
        for b in found.bins
    ]
    x, y = _share_axis("confidence", "confidence"), _share_axis("accuracy", "accuracy")
    x["scale"] = y["scale"] = {"domain": [0, 1]}
    x["axis"] = y["axis"] = {"format": ".0%", "values": [0, 0.5, 1]}
    ends = {"x": {"datum": 0}, "y": {"datum": 0}, "x2": {"datum": 1}, "y2": {"datum": 1}}
    layers = [
        {"mark": {"type": "rule", "strokeDash": [3, 3], "opacity": 0.45}, "encoding": ends},
        {"mark": {"type": "line", "color": "var(--c1)", "strokeWidth": 1.6,
                  "point": {"filled": True, "size": 36, "color": "var(--c1)"}},
         "encoding": {"x": x, "y": y}},
    ]  # fmt: skip
    facet = {"field": "model", "type": "nominal", "sort": list(shown)}
    panel = {"width": WIDTH // 3 - 65, "height": 190, "layer": layers}
    return draw({"facet": facet, "columns": 3, "spacing": {"column": 44}, "spec": panel}, rows, "calibration")


def clouds(found: Sequence[Cloud]) -> Chart:
    """The points of every cloud, all to one scale."""
    rows = [
        {"cloud": one.name, "x": round(float(x), 3), "y": round(float(y), 3)} for one in found for x, y in one.points
    ]
    x, y = ({**_number(name, ""), "axis": {"tickCount": 3}} for name in "xy")
    dot = {"type": "circle", "size": 7, "opacity": 0.6, "color": "var(--c1)"}
    facet = {"field": "cloud", "type": "nominal", "sort": [one.name for one in found]}
    panel = {"width": WIDTH // 4 - 50, "height": WIDTH // 4 - 50, "mark": dot, "encoding": {"x": x, "y": y}}
    return draw({"facet": facet, "columns": 4, "spacing": {"column": 30}, "spec": panel}, rows, "clouds of points")


def _number(name: str, title: str) -> Spec:
    return {
        "field": name,
        "type": "quantitative",
        "title": title,
        "scale": {"nice": True, "zero": False},
        "axis": {"tickCount": 6},
    }


def _share_axis(name: str, title: str) -> Spec:
    return {"field": name, "type": "quantitative", "title": title, "axis": {"format": ".0%", "tickCount": 5}}


def _series(name: str, order: Iterable[str]) -> Spec:
    names = list(order)
    return {"field": name, "type": "nominal", "sort": names,
            "scale": {"domain": names, "range": [SERIES[i % len(SERIES)] for i in range(len(names))]}}  # fmt: skip
