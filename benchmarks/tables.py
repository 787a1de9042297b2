"""The results of all benchmarks as tables in benchmarks/README.md.

    python benchmarks/tables.py

A result is `results/<name>.json` with `date`, `machine`, `commit`, `versions`, `rounds`, `rows` (one mapping a method),
`goals` (`goal`, `reached`, `met`) and, where there is more to say, `notes`; `unit` says what a round is, where it is
something else. What is measured and how to run it again is the docstring of `<name>.py`.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE / "README.md"
BEGIN, END = "<!-- results: made by tables.py -->\n", "<!-- /results -->"


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Mappings as a Markdown table; the first row's keys are its columns, numbers are on the right."""
    names = list(rows[0])
    yield f"| {' | '.join(name.replace('_', ' ') for name in names)} |"
    yield f"|{'|'.join('---:' if _number(rows[0][name]) else '---' for name in names)}|"
    for row in rows:
        yield f"| {' | '.join(_cell(row.get(name)) for name in names)} |"


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def section(name: str, found: dict[str, Any]) -> Iterator[str]:
    """One benchmark: what it is, its rows, its goals."""
    said = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text("utf-8"))) or ""
    about, _, how = said.partition("\n\n")
    command = how.strip().splitlines()[0].partition("#")[0].strip()
    yield from (f"### {name}", "", " ".join(about.split()), f"Again: `{command}`.", "")
    yield from table(found["rows"])
    if found["goals"]:
        yield ""
        yield from table(found["goals"])
    yield ""
    yield from (f"- {note}" for note in found.get("notes", ()))
    of = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
    made = f"{found['rounds']} {found.get('unit', 'rounds')} on {found['date']}"
    yield f"- {made}, {found['machine']}, commit {found['commit']}; {of}."
    yield ""


def sections() -> str:
    """All results of this shape, by name."""
    lines: list[str] = []
    for file in sorted((HERE / "results").glob("*.json")):
        found = json.loads(file.read_text("utf-8"))
        if found.keys() >= {"rows", "goals", "versions", "rounds"}:
            lines += section(file.stem, found)
    return "\n".join(lines)


def filled(text: str) -> str:
    """The page with the results of now between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + sections() + END + after


if __name__ == "__main__":
    README.write_text(filled(README.read_text("utf-8")), "utf-8")
