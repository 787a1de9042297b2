"""Methods: every method that `use:` may name, from its docstring."""

from __future__ import annotations

import argparse
import re

from pipeline.commands.screen import show
from pipeline.core.methods import KINDS, available, find

ABOUT = "every method that `use:` may name, with its paper"


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `methods`."""
    command.add_argument("kind", nargs="?", choices=KINDS, help=f"one of {', '.join(KINDS)}", metavar="kind")
    command.add_argument("--markdown", action="store_true", help="print tables for a README")


def run(kind: str | None, markdown: bool) -> None:
    """Print every method that `use:` may name, from its docstring."""
    for one in [kind] if kind else KINDS:
        rows = [(name, *_summary(find(one, name).about)) for name in available(one)]
        if markdown:
            show([f"**{KINDS[one]}**", "", "| method | what it computes | paper |", "|---|---|---|"])
            show(f"| `{name}` | {_escaped(about)} | {_escaped(paper)} |" for name, about, paper in rows)
        else:
            width = max((len(name) for name, *_ in rows), default=0)
            show([KINDS[one]])
            show(f"  {n:<{width}}  {about}" + ("" if p == "none" else f" [{p}]") for n, about, p in rows)
        show([""])


def _summary(about: str) -> tuple[str, str]:
    """The first sentence of a docstring, and whose the method is."""
    first = " ".join(about.split("\n\n")[0].split())
    paper = re.search(r"^Paper:(.*?)(?=^Differs:|\Z)", about, re.DOTALL | re.MULTILINE)
    return re.split(r"(?<=\.)\s", first)[0], " ".join(paper[1].split()).rstrip(".") if paper else "none"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
