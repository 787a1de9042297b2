"""Plan: `params.yaml`, checked whole and written as one JSON per instance."""

from __future__ import annotations

import argparse

from pipeline.core import identity
from pipeline.core.workspace import DATA, PARAMS, ROOT
from pipeline.plan import pin
from pipeline.plan.disk import remember, write
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve

ABOUT = "check params.yaml and resolve it into data/plan/"


def arguments(command: argparse.ArgumentParser) -> None:
    """Nothing may follow `plan`."""


def run() -> None:
    """Check `params.yaml` whole and write `data/plan/`."""
    pin.hold(ROOT)
    package = identity.package(identity.OWN)
    plan = resolve(load(PARAMS))
    write(plan, DATA)
    remember(plan, package, DATA)
    print(f"plan: {len(plan.instances)} instances, all parameters valid")
