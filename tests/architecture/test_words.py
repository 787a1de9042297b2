"""What a reader may count on in every file: a docstring, a size, a name, a column's meaning."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.contracts import TABLES
from pipeline.core import methods
from pipeline.core.stage import STAGES

ROOT = Path(__file__).parents[2]
LINES = 500
# A user's own methods are the user's.
SOURCES = sorted(
    path for folder in ("pipeline", "flows") for path in (ROOT / folder).rglob("*.py") if path.stem != methods.MINE
)
METHODS = [(kind, name) for kind in methods.KINDS for name in methods.shipped(kind)]


@pytest.mark.parametrize(("kind", "name"), METHODS, ids=lambda value: value)
def test_a_method_says_what_it_computes_whose_it_is_and_how_ours_differs(kind: str, name: str) -> None:
    method = methods.find(kind, name)
    what, _, rest = method.about.partition("Paper:")
    paper, differs, ours = rest.partition("Differs:")
    assert what.strip() and paper.strip() and differs and ours.strip(), (
        f"{method.module}: the docstring of {name} has three parts: what it computes, `Paper:` and `Differs:`"
    )


def undocumented(path: Path) -> Iterator[str]:
    module = ast.parse(path.read_text("utf-8"))
    if ast.get_docstring(module) is None:
        yield "the module"
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            # A stage's parameters are told by the stage, a kind of `use` by its base, one line by itself.
            told = len(node.body) == 1 or (isinstance(node, ast.ClassDef) and node.name == "Params")
            if ast.get_docstring(node) is None and not told:
                yield node.name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_stands_alone_but_the_docstring(path: Path) -> None:
    """A second one is dead, and nobody sees to it that it is true."""
    alone = [
        f"line {line.lineno}"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for line in node.body[1:]
        if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
    ]
    assert alone == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_have_docstrings(path: Path) -> None:
    assert list(undocumented(path)) == []


def test_no_file_is_long_and_none_is_named_for_nothing() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    )  # fmt: skip
    paths = [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]
    long = {str(p.relative_to(ROOT)): n for p in paths if (n := len(p.read_text("utf-8").splitlines())) > LINES}
    assert long == {}
    empty = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}
    assert [str(p.relative_to(ROOT)) for p in paths if set(p.stem.split("_")) & empty] == []


def test_every_column_has_a_meaning() -> None:
    mute = [f"{t.name}.{name}" for t in TABLES.values() for name, c in t.columns.items() if len(c.about.split()) < 2]
    assert mute == []


def test_flows_know_no_stage_by_name() -> None:
    """The flow takes its stages from the map; one that it knew by name would be forgotten when the map changes."""
    # The flow's own name, a word of DVC's lock table, and titles of what is shown.
    words = {"distill", "read", "gate", "report"}
    found = [
        f"{path.name}:{node.lineno} {node.value}"
        for path in (ROOT / "flows").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and node.value in {*STAGES} - words
    ]
    assert found == []


def test_the_two_commands_are_where_people_look() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    text = (ROOT / "README.md").read_text("utf-8")
    assert "make repro" in text and "make test" in text
