"""The fingerprint of code: what it says, not how it is laid out.

An instance's identity holds the fingerprint of its stage's module, of its methods' modules, and of every module of
this package that they import. Comments, docstrings and layout do not count, so editing them re-runs nothing. Files that
are no Python and stand beside a module that names them, such as a page's template, count by their bytes.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

from pipeline.tables import ids

PACKAGE = Path(__file__).parents[1]
# These say how a stage is run and checked. The contracts enter by the schemas of the tables a stage reads and writes.
HOW = {"core", "memo", "plan", "commands", "errors", "display", "contracts", "__init__", "__main__"}


def fingerprint(modules: list[str]) -> str:
    """One hash over the syntax trees of these modules (`pipeline.stages.score`) and all they import from here."""
    return ids.digest([[name, _tree(name), _beside(name)] for name in closure(modules)])


def closure(modules: list[str]) -> list[str]:
    """These modules and those of this package that they import, directly or not, without the ones in HOW."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(m for m in _imports(name) if m.removeprefix("pipeline.").split(".")[0] not in HOW)
    return sorted(found)


def _file(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def _parsed(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text("utf-8"))


@functools.cache
def _imports(module: str) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.walk(_parsed(module)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pipeline":
            below = [f"{node.module}.{a.name}" for a in node.names]
            names.extend(m for m in below if _file(m).exists())
            if node.module != "pipeline" and _file(node.module).exists():
                names.append(node.module)
        elif isinstance(node, ast.Import):
            names.extend(a.name for a in node.names if a.name.startswith("pipeline.") and _file(a.name).exists())
    return tuple(names)


@functools.cache
def _beside(module: str) -> list[list[str]]:
    """Path and hash of every file beside a module, or in a folder beside it, whose name the module says."""
    folder = _file(module).parent
    names = {n.value for n in ast.walk(_parsed(module)) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    files: set[Path] = set()
    for place in sorted(path for path in folder.iterdir() if path.name in names):
        files |= {place} if place.is_file() else {path for path in place.rglob("*") if path.is_file()}
    return [
        [file.relative_to(folder).as_posix(), ids.digest(file.read_bytes().hex())]
        for file in sorted(files)
        if file.suffix not in (".py", ".pyc")
    ]


@functools.cache
def _tree(module: str) -> str:
    tree = ast.parse(_file(module).read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                node.body = node.body[1:] or [ast.Pass()]
    return ids.digest(ast.dump(tree))
