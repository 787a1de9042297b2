"""The report as a browser sees it: silent, alone, and deaf to what a model wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from tests.e2e.browser import CHROMIUM, Visit, visit
from tests.stages import report_data

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")]
OPEN = "document.querySelectorAll('details').forEach(d => d.open = true)"
ACTIVE = "document.querySelectorAll('script, img, iframe, object, embed, link, base, form').length"
TEXT = "document.body.innerText"
# Wider than the window: a reader would have to scroll the whole page sideways.
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CHARTS = "[...document.querySelectorAll('figure > svg')].map(s => s.getBoundingClientRect().height)"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("run") / "data"
    plan = report_data.build(data)
    run_instance(plan.instances["report@report"], RunSettings(), data, data.parent)
    return data / "reports"


@pytest.fixture(scope="module")
def seen(report: Path) -> Visit:
    return visit(report / "report.html", OPEN, TEXT, "document.title", ACTIVE, OVERFLOW, CHARTS)


def test_the_page_says_nothing_and_asks_for_nothing(report: Path, seen: Visit) -> None:
    assert seen.console == []
    assert seen.requests == [(report / "report.html").as_uri()]


def test_what_a_model_wrote_is_text(seen: Visit) -> None:
    _, text, title, active, _, _ = seen.answers
    assert title == "Distillation report"
    assert active == 0
    assert "<script>document.title='owned'</script>" in text
    assert r"\x1b[31mred" in text
    assert r"\u202eesrever" in text
    assert "{{ 7 * 7 }}" in text


def test_every_number_of_the_metrics_stands_on_the_page(report: Path, seen: Visit) -> None:
    words = set(re.split(r"\s+", seen.answers[1]))
    metrics = json.loads((report / "metrics.json").read_text("utf-8"))
    numbers = [json.dumps(number) for row in metrics.values() for number in row.values()]
    assert len(numbers) > 40
    assert [number for number in numbers if number not in words] == []


def test_every_chart_is_drawn_and_the_page_fits(seen: Visit) -> None:
    overflow, heights = seen.answers[4:]
    assert overflow == 0
    assert len(heights) == 7
    assert min(heights) > 100


def test_the_watch_would_have_seen_a_page_that_misbehaves(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<!DOCTYPE html><script>console.log('spoke'); document.title = 'owned'</script>"
        "<img src='http://127.0.0.1:9/pixel.png'><script>throw new Error('fell')</script>",
        "utf-8",
    )
    seen = visit(page, "document.title")
    assert seen.answers == ["owned"]
    assert "http://127.0.0.1:9/pixel.png" in seen.requests
    assert "spoke" in seen.console
    assert any("Uncaught" in line for line in seen.console)
