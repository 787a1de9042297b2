"""Status: what `dvc repro` would run now, and why, on the screen."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pipeline.commands.screen import show, show_json
from pipeline.core.workspace import PARAMS, ROOT
from pipeline.display import listed
from pipeline.plan import pin
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.plan.status import Standing, standings

ABOUT = "what `dvc repro` would run now, and why"
MORE = "An instance that must run is restored from DVC's run cache if the same was run before."


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `status`."""
    command.add_argument("--json", action="store_true", dest="as_json", help="print JSON")


def run(as_json: bool) -> None:
    """Print every instance that is not up to date, with its reasons."""
    given = load(PARAMS)
    found = standings(given, resolve(given), ROOT)
    if as_json:
        show_json({s.label: {"state": s.state, "why": s.why} for s in found if s.state != "clean"})
        return
    tell(found)
    show(pin.told(ROOT))


def tell(found: Sequence[Standing]) -> None:
    """Print what is not up to date, and how much is."""
    said = {
        "must": "must run: {}",
        "may": "may run, if what it reads from {} comes out different",
        "missing": "does not run; DVC restores {} from its cache",
    }
    open_ = [s for s in found if s.state != "clean"]
    width = max((len(s.label) for s in open_), default=0)
    show(f"{s.label:<{width}}  {said[s.state].format(listed(s.why, 4))}" for s in open_)
    show([f"{len(found) - len(open_)} of {len(found)} instances are up to date"])
