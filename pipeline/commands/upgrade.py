"""Upgrade: the package that is installed now, taken on by a workspace; what that makes again is told first."""

from __future__ import annotations

import argparse

from pipeline.commands import new
from pipeline.commands.screen import show
from pipeline.commands.status import tell
from pipeline.core.workspace import PARAMS, ROOT
from pipeline.errors import Refused
from pipeline.plan import pin
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.plan.status import standings

ABOUT = "pin the installed package in a workspace, and say what that makes again"
MORE = "It runs nothing: `dvc repro` does. `git checkout .` and the package of before lead back."


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `upgrade`."""
    command.add_argument("--force", action="store_true", help=f"even if {pin.MAP} has edits, which are lost")


def run(force: bool) -> None:
    """Write the map and the pin of the installed package, and say what `dvc repro` will run."""
    if pin.read(ROOT) is None:
        raise Refused(f"there is no {pin.PIN} here: `stillhouse new` makes a workspace, and a clone is upgraded by git")
    if pin.own_map(ROOT) and not force:
        raise Refused(f"{pin.MAP} has edits, which the map of this package would replace; --force loses them")
    new.bring(ROOT)
    pin.write(ROOT)
    given = load(PARAMS)
    show([f"{pin.PIN} pins stillhouse {pin.version('stillhouse')}; `dvc repro` will make again:"])
    tell(standings(given, resolve(given), ROOT))
