"""Use: a complete params file in place of `params.yaml`."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from pipeline.commands.screen import show
from pipeline.core.workspace import ABSENT, PARAMS
from pipeline.errors import Refused
from pipeline.plan.faults import PlanError
from pipeline.plan.reading import load
from pipeline.plan.reading import recipe as named
from pipeline.plan.resolve import resolve

ABOUT = "put a complete params file in place of params.yaml"


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `use`."""
    command.add_argument("recipe", type=Path, help="such as recipes/<file>, here or of the package")
    command.add_argument("--force", action="store_true", help="even if params.yaml has changes that git does not hold")


def run(recipe: Path, force: bool) -> None:
    """Put a complete params file in place of params.yaml."""
    found, waits = named(recipe), list[str]()
    try:
        told = f"{len(resolve(load(found)).instances)} instances. `stillhouse status` says what will run"
    except PlanError as error:
        waits = [f"  - {fault}" for fault in error.faults if fault.endswith(ABSENT)]
        if len(waits) < len(error.faults):
            raise PlanError(error.faults, str(recipe)) from error
        told = "it waits for files of yours. Bring them, or name others in it; then `stillhouse check`:"
    new = found.read_bytes()
    if PARAMS.exists() and PARAMS.read_bytes() != new and not force and not _committed(PARAMS):
        raise Refused(f"{PARAMS} has changes that git does not hold; commit them, or add --force to lose them")
    fresh = PARAMS.with_suffix(".new")
    fresh.write_bytes(new)
    fresh.replace(PARAMS)
    show([f"{PARAMS} is now {recipe}: {told}", *waits])


def _committed(file: Path) -> bool:
    """Whether git holds this file as it is; without git nothing is held."""
    command = ["git", "status", "--porcelain", "--ignored", "--", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and not done.stdout.strip()
