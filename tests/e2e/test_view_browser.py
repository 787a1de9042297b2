"""`stillhouse view` as a browser sees it: filter, row, lineage, label; silent, and deaf to what a model wrote."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.tables.labels import labels_of
from tests.e2e.browser import CHROMIUM, Step, Visit, visit
from tests.viewing import made

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")]
ROOT = Path(__file__).parents[2]
TEXT = "document.body.innerText"
HERE = "location.pathname"
ACTIVE = "document.querySelectorAll('script, img, iframe, object, embed, base, style').length"
UNNAMED = """[...document.querySelectorAll('input:not([type=hidden]), select')].filter(e => !e.labels.length).length"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
FILTER = "document.querySelector('#where').value = \"entry = 'teacher' AND sample = 0\"; document.forms[0].submit()"
# A hostile answer that was kept, so that it has an example.
OPEN = (
    "[...document.querySelectorAll('tbody tr')].find(r => r.innerText.includes('<script>')).querySelector('a').click()"
)
BACK = "document.querySelector('a[href*=\"/instance/prompts/\"]').click()"
FORTH = "document.querySelector('a[href*=\"/instance/responses/\"]').click()"
LABEL = "document.querySelector('#note').value = 'by hand <b>'; document.querySelector('button[value=bad]').click()"
LOST = "document.querySelector('a[href*=\"compare\"]').click()"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("view")
    made.build(place)
    return place


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    command, env = [sys.executable, "-m", "pipeline", "view"], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield child.stdout.readline().strip()
        child.send_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def seen(address: str) -> Visit:
    looks = (TEXT, HERE, ACTIVE, UNNAMED, OVERFLOW)
    pages = (Step(FILTER), *looks, Step(OPEN), *looks, Step(LABEL), *looks, Step(BACK), *looks, Step(FORTH), *looks,
             Step(LOST), *looks)  # fmt: skip
    return visit(address, *pages, "document.title")


def shown(seen: Visit, number: int) -> tuple[str, str]:
    """Text and path of the page that a step led to."""
    return seen.answers[5 * number], seen.answers[5 * number + 1]


def test_a_filter_a_row_its_lineage_and_two_models(seen: Visit) -> None:
    text, _ = shown(seen, 0)
    assert "60 rows where entry = 'teacher' AND sample = 0" in text
    text, path = shown(seen, 1)
    assert re.search(r"/row/[0-9a-f]{32}$", path) and "Answer of teacher" in text and "Nobody has labelled it" in text
    assert shown(seen, 3)[1].endswith("/instance/prompts/train/tasks")
    assert re.search(r"/instance/responses/train/\w+$", shown(seen, 4)[1])
    assert "Side by side" in shown(seen, 5)[0] and "won" in shown(seen, 5)[0]


def test_a_label_is_in_the_table(root: Path, seen: Visit) -> None:
    text, path = shown(seen, 2)
    assert re.search(r"Called bad at .* \(UTC\): by hand <b>", text)
    label = labels_of(root / "data")[path.rpartition("/")[2]]
    assert (label["good"], label["note"]) == (False, "by hand <b>")


def test_what_a_model_wrote_is_text(seen: Visit) -> None:
    text, _ = shown(seen, 1)
    assert "<script>document.title='owned'</script>" in text and r"\x1b[31mred" in text and r"\u202eesrever" in text
    assert "owned" not in seen.answers[-1]
    assert [seen.answers[5 * n + 2] for n in range(6)] == [0] * 6


def test_the_pages_are_silent_and_ask_nobody_else(address: str, seen: Visit) -> None:
    assert seen.console == []
    assert [url for url in seen.requests if not url.startswith(address)] == []


def test_every_control_has_a_name_and_every_page_fits(seen: Visit) -> None:
    assert [seen.answers[5 * n + 3] for n in range(6)] == [0] * 6
    assert [seen.answers[5 * n + 4] for n in range(6)] == [0] * 6
