"""README.md says what the code and the results say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_blocks_are_fresh() -> None:
    page = (ROOT / "README.md").read_text("utf-8")
    assert script("fill_readme").filled(page) == page, "run `python docs/fill_readme.py`"


def test_the_page_of_verifiers_is_fresh() -> None:
    module = script("fill_verifiers")
    assert module.PAGE.read_text("utf-8") == module.page(), "run `python docs/fill_verifiers.py`"


def test_every_file_it_links_to_exists() -> None:
    page = (ROOT / "README.md").read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_five_files_to_read_are_there() -> None:
    page = (ROOT / "README.md").read_text("utf-8")
    [section] = re.findall(r"^## Five files to read\n(.*?)^## ", page, re.M | re.S)
    assert len(re.findall(r"^\d\. ", section, re.M)) == 5
    paths = re.findall(r"`([\w./]+)`", section)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert len(paths) >= 4
