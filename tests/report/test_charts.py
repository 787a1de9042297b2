"""Charts: every text in them is printable, and what a drawing library dies of costs one chart and not the report."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
from markupsafe import Markup

from pipeline.bounded import Limits
from pipeline.display import label
from pipeline.report import charts
from pipeline.report.charts import Chart, draw, drawn
from pipeline.report.curves import Curve

LABELS = {
    "control": ("a\x07b", r"a\x07b"),
    "escape": ("\x1b[31mred", r"\x1b[31mred"),
    "nul": ("a\0b", r"a\x00b"),
    "line breaks": ("a\nb\r\tc", r"a\nb\r\tc"),
    "C1 control": ("a\x9bb", r"a\x9bb"),
    "right to left": ("\u202eabc", r"\u202eabc"),
    "isolate": ("\u2066abc\u2069", r"\u2066abc\u2069"),
    "zero width": ("a\u200bb\u200d\ufeff", r"a\u200bb\u200d\ufeff"),
    "line separator": ("a\u2028b\u2029", r"a\u2028b\u2029"),
    "private use": ("\ue000\U000f0000", r"\ue000\U000f0000"),
    "not a character": ("\uffff\U0001ffff", r"\uffff\U0001ffff"),
    "half of a pair": ("a\ud800b", r"a\ud800b"),
    "unassigned": ("\u0378", r"\u0378"),
    "a wide space": ("a\u3000b\u00a0c", r"a\u3000b\xa0c"),
    "soft hyphen and tag": ("a\u00adb\U000e0041", r"a\xadb\U000e0041"),
    "what is printable stays": ("Zähler, 数学 \U0001f600 <b>&", "Zähler, 数学 \U0001f600 <b>&"),
    "nothing": ("", ""),
    "too long": ("x" * 130, "x" * 120 + "…"),
}


@pytest.mark.parametrize("what", LABELS)
def test_a_label_is_printable(what: str) -> None:
    text, wanted = LABELS[what]
    assert label(text) == wanted
    assert label(text).isprintable()


@pytest.mark.parametrize("what", LABELS)
def test_every_text_of_a_chart_is_a_label(what: str) -> None:
    text, wanted = LABELS[what]
    y = {"field": "domain", "sort": [text], "scale": {"domain": (text, "b")}}
    spec = draw({"encoding": {"y": y}, "layer": [{"title": text}]}, [{"domain": text, "n": 1.5, "no": None}], "t").spec
    assert spec["data"] == {"values": [{"domain": wanted, "n": 1.5, "no": None}]}
    assert spec["encoding"]["y"]["sort"] == [wanted] and spec["encoding"]["y"]["scale"]["domain"] == [wanted, "b"]
    assert spec["layer"] == [{"title": wanted}]


def bars(*domains: str) -> Chart:
    x, y = {"field": "n", "type": "quantitative"}, {"field": "domain", "type": "nominal"}
    return draw({"mark": "bar", "encoding": {"x": x, "y": y}}, [{"domain": d, "n": 1} for d in domains], "some bars")


def test_harmless_labels_are_drawn() -> None:
    [found] = drawn([bars("add", "Zähler", "a\x07b", "<b>&")])
    assert found.startswith('<svg role="img" aria-label="some bars"') and r"a\x07b" in found and "<b>" not in found


@pytest.mark.parametrize("objectives", [("a",), ("a", "b")], ids=["one panel", "two panels"])
def test_what_is_held_out_is_drawn_beside_what_is_trained_on(objectives: tuple[str, ...]) -> None:
    """Dashed, with a point at every look; and not at all where nothing is held out."""
    points = tuple(
        {"step": n, "loss": 3 / n, **({"held_out": 3.5 / n} if n % 2 == 0 else {})} for n in range(1, 7)
    )  # fmt: skip
    bare = tuple({"step": p["step"], "loss": p["loss"]} for p in points)
    watched, plain = ([Curve(f"m{o}", o, given) for o in objectives] for given in (points, bare))
    assert watched[0].held_out == [(2, 1.75), (4, 0.875), (6, 3.5 / 6)] and plain[0].held_out == []
    with_looks, without = drawn([charts.losses(watched), charts.losses(plain)])
    # The legend has one too.
    assert with_looks.count('stroke-dasharray="5,3"') == len(objectives) + 1 and 'stroke-dasharray="5,3"' not in without
    assert all(f'"step: {n}; loss: {3.5 / n:.12g}; model: m{o}"' in with_looks for n in (2, 4, 6) for o in objectives)
    assert "rows that are held out" in with_looks and "rows that are held out" not in without


def refuse() -> None:
    raise ValueError("no\x1b chart")


DEATHS: dict[str, tuple[Callable[[], object], str]] = {
    "abort": (os.abort, "SIGABRT"),
    "segmentation fault": (lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV"),
    "bus error": (lambda: os.kill(os.getpid(), signal.SIGBUS), "SIGBUS"),
    "illegal instruction": (lambda: os.kill(os.getpid(), signal.SIGILL), "SIGILL"),
    "trap": (lambda: os.kill(os.getpid(), signal.SIGTRAP), "SIGTRAP"),
    "arithmetic": (lambda: os.kill(os.getpid(), signal.SIGFPE), "SIGFPE"),
    "killed for memory": (lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL"),
    "terminated": (lambda: os.kill(os.getpid(), signal.SIGTERM), "SIGTERM"),
    "exit": (lambda: os._exit(101), "exit code 101"),
    "exit as if all were well": (lambda: os._exit(0), "exit code 0"),
    "no end": (lambda: time.sleep(1000), "longer than"),
    "an error": (refuse, r"no\x1b chart"),
}


@pytest.mark.parametrize("what", DEATHS)
def test_a_chart_that_cannot_be_drawn_is_a_sentence_and_the_others_are_drawn(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    die, said = DEATHS[what]

    def svg(chart: Chart) -> Markup:
        if chart.title == "second & last":
            die()
        return Markup(f"<svg>{chart.title}</svg>")

    monkeypatch.setattr(charts, "_svg", svg)
    monkeypatch.setattr(charts, "PATIENCE", Limits(seconds=1.5 if what == "no end" else 60))
    first, second = drawn([Chart({}, "first"), Chart({}, "second & last")])
    assert first == "<svg>first</svg>"
    assert "This chart (second &amp; last) could not be drawn" in second and said in second
