"""The fingerprint of code: what it says, not how it is laid out nor where it lies.

An instance's identity holds the fingerprint of its stage's module, of its methods' modules, and of every module of
this package that they import. Comments, docstrings and layout do not count, so editing them re-runs nothing. Names of
modules and statements of import do not either, so moving a file re-runs nothing: a module is known by what it says, and
an imported name by its name there and what that module says. Files that are no Python and stand beside a module that
names them, such as a page's template, count by their bytes.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path

from pipeline.tables import ids

PACKAGE = Path(__file__).parents[1]
# A workspace's own methods lie here, `methods/scorers/mine.py`, as if they lay in the package.
OWN = Path("methods")
# The family that is the user's own, in the folder of every kind.
MINE = "mine"
# These say how a stage is run and checked. The contracts enter by the schemas of the tables a stage reads and writes.
HOW = {"core", "memo", "plan", "commands", "errors", "display", "contracts", "__init__", "__main__"}
NOTHING = ast.dump(ast.Module([], []))
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def fingerprint(modules: list[str]) -> str:
    """One hash over the syntax trees of these modules (`pipeline.stages.score`) and all they import from here."""
    return ids.digest(sorted({said for said in map(_digest, closure(modules)) if said is not None}))


def closure(modules: list[str]) -> list[str]:
    """These modules and those of this package that they import, directly or not, without the ones in HOW."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(module for module, _, _ in _imports(name) if _counts(module))
    return sorted(found)


def package(*more: Path) -> str:
    """A hash over the files of this package, and of more folders, by their bytes.

    While it is the same, with the folder `OWN`, every fingerprint is.
    """
    files = ((f.relative_to(root), f) for root in (PACKAGE, *more) for f in root.rglob("*"))
    code = ((place.as_posix(), f.read_bytes().hex()) for place, f in files if f.is_file() and f.suffix != ".pyc")
    return ids.digest(sys.version, sorted(code))


@functools.cache
def says(module: str, name: str = "") -> str:
    """What a module says, by itself; or one definition of it, with all others of the module that it needs."""
    bare = _bare(module)
    if not name:
        return ids.digest(bare, _beside(module))
    named = {said: node for node in _parsed(module).body for said in _defines(node)}
    needed, waiting = set[str](), [name]
    while waiting:
        one = waiting.pop()
        if one in named and one not in needed:
            needed.add(one)
            waiting += [node.id for node in ast.walk(named[one]) if isinstance(node, ast.Name)]
    return ids.digest(sorted(ast.dump(named[one]) for one in needed), _beside(module))


def _defines(node: ast.stmt) -> list[str]:
    """The names that a statement of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def forget() -> None:
    """Forget all files that were read: another package is to be read, or other files in its place."""
    for cached in (_parsed, _imports, _bare, says, _digest, _beside):
        cached.cache_clear()


def _file(module: str) -> Path:
    way = module.split(".")[1:]
    path, own = PACKAGE.joinpath(*way), OWN.joinpath(*way).with_suffix(".py")
    if way[-1:] == [MINE] and own.exists():
        return own
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _ours(module: str) -> bool:
    return module.startswith("pipeline.") and _file(module).exists()


def _counts(module: str) -> bool:
    return _ours(module) and module.split(".")[1] not in HOW


@functools.cache
def _parsed(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text("utf-8"))


@functools.cache
def _imports(module: str) -> tuple[tuple[str, str, str], ...]:
    """Module, name in it ("" for all of it), and name here, of all that a module imports, wherever it does."""
    found: list[tuple[str, str, str]] = []
    for node in ast.walk(_parsed(module)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                below, here = f"{node.module}.{name.name}", name.asname or name.name
                found.append((below, "", here) if _ours(below) else (node.module, name.name, here))
        elif isinstance(node, ast.Import):
            found.extend((name.name, "", name.asname or name.name) for name in node.names)
    return tuple(found)


@functools.cache
def _bare(module: str) -> str:
    """A module's syntax tree without imports and docstrings."""
    # The tree is cut in place: what else is read from it is read before.
    _imports(module), _beside(module)
    tree = _parsed(module)
    _cut(tree)
    return ast.dump(tree)


def _cut(node: ast.AST) -> None:
    """Take docstrings and imports out of what is below a statement."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        below = getattr(node, name, None)
        if not isinstance(below, list):
            continue
        if name == "body" and isinstance(node, DOCUMENTED) and below and _is_text(below[0]):
            below = below[1:]
        setattr(node, name, [child for child in below if not isinstance(child, ast.Import | ast.ImportFrom)])
        for child in below:
            _cut(child)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str)


@functools.cache
def _digest(module: str) -> str | None:
    """What a module says, with what every imported name stands for; None if that is nothing, as in most `__init__`s."""
    whole = {here: says(of) for of, name, here in _imports(module) if not name and _counts(of)}
    names = sorted({
        (here, name, says(of) if _counts(of) else "" if _ours(of) else of)
        for of, name, here in _imports(module)
        if here not in whole and of != "__future__"
    })  # fmt: skip
    if _bare(module) == NOTHING and not names:
        return None
    bare = re.sub(r"(?<=Name\(id=')\w+", lambda name: whole.get(name[0], name[0]), _bare(module))
    return ids.digest(bare, names, _beside(module))


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
