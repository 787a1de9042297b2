"""Methods: what `use:` may name, told for people, or as the tables of a README; and whether one keeps the laws."""

from __future__ import annotations

import argparse
import re

from pipeline.commands.screen import show
from pipeline.core.methods import KINDS, MINE, available, find, shipped
from pipeline.errors import Refused

ABOUT = "every method that `use:` may name, with its paper"
MORE = f"With `--check {MINE}.name`, what a method of your own breaks of the laws that all others keep."


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `methods`."""
    command.add_argument("kind", nargs="?", choices=KINDS, help=f"one of {', '.join(KINDS)}", metavar="kind")
    command.add_argument("--markdown", action="store_true", help="print tables for a README")
    command.add_argument("--check", metavar="name", help="say which laws of its kind a method breaks")


def run(kind: str | None, markdown: bool, check: str | None = None) -> None:
    """Print every method that `use:` may name, from its docstring; or hold one to the laws of its kind."""
    if check is not None:
        _check(kind, check)
        return
    for one in [kind] if kind else KINDS:
        names = shipped(one) if markdown else available(one)
        rows = [(name, *_summary(find(one, name).about)) for name in names]
        if markdown:
            show([f"**{KINDS[one]}**", "", "| method | what it computes | paper |", "|---|---|---|"])
            show(f"| `{name}` | {_escaped(about)} | {_escaped(paper)} |" for name, about, paper in rows)
        else:
            width = max((len(name) for name, *_ in rows), default=0)
            show([KINDS[one]])
            show(f"  {n:<{width}}  {about}" + ("" if p == "none" else f" [{p}]") for n, about, p in rows)
        show([""])


def _check(kind: str | None, name: str) -> None:
    """Refuse a method that breaks a law, with a sentence for each."""
    # Loaded here: laws of objectives need torch.
    from pipeline.laws.law import broken

    of = [kind] if kind else [one for one in KINDS if name in available(one)]
    if not of and kind is None:
        raise Refused(f"no method of any kind is called {name!r}; `stillhouse methods` lists all")
    sentences = [sentence for one in of for sentence in broken(one, name)]
    if sentences:
        raise Refused("\n".join(sentences))
    show([f"{one} {name} keeps every law" for one in of])


def _summary(about: str) -> tuple[str, str]:
    """The first sentence of a docstring, and whose the method is."""
    first = " ".join(about.split("\n\n")[0].split())
    paper = re.search(r"^Paper:(.*?)(?=^Differs:|\Z)", about, re.DOTALL | re.MULTILINE)
    return re.split(r"(?<=\.)\s", first)[0], " ".join(paper[1].split()).rstrip(".") if paper else "none"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
