"""Check: `params.yaml` whole, and nothing is written."""

from __future__ import annotations

import argparse

from pipeline.core.workspace import PARAMS
from pipeline.errors import Refused
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.plan.rounds import SECTION, joined, with_rounds
from pipeline.training.recipe import StudentParams
from pipeline.training.reporters import missing

ABOUT = "check params.yaml and write nothing"


def arguments(command: argparse.ArgumentParser) -> None:
    """Nothing may follow `check`."""


def run() -> None:
    """Check `params.yaml` and write nothing."""
    given = load(PARAMS)
    plan = resolve(given)
    if lacks := missing(plan.settings):
        raise Refused("; ".join(lacks))
    for label, instance in plan.instances.items():
        if isinstance(instance.params, StudentParams) and (alone := instance.params.undivided(plan.settings)):
            print(f"{label}: {alone[0]}: one process does it, and not `run.ranks: {plan.settings.ranks}`")
    about = ""
    if given.get(SECTION):
        more = len(resolve(joined(given, with_rounds(given, 1))).instances) - len(plan.instances)
        about = f", and {more} more in every further round"
    print(f"params.yaml is valid: {len(plan.instances)} instances{about}")
