"""Warm: a command, such as `dvc repro`, with a warm parent that its stages are forked from."""

from __future__ import annotations

import argparse
import shutil
import sys

from pipeline.core.warm import run_beside
from pipeline.core.workspace import PARAMS
from pipeline.errors import Refused
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve

ABOUT = "run a command, such as `dvc repro`, with the heavy imports paid once"


def arguments(command: argparse.ArgumentParser) -> None:
    """The command that follows `warm`."""
    command.add_argument("command", nargs=argparse.REMAINDER, help="the command with its arguments")


def run(command: list[str]) -> None:
    """Run a command with a warm parent beside it, and end as it ends."""
    if not command:
        raise Refused("name the command that is to be run, such as `stillhouse warm dvc repro`")
    if shutil.which(command[0]) is None:
        raise Refused(f"there is no command {command[0]!r} on the path, or it cannot be run; such as: dvc repro")
    sys.exit(run_beside(command, resolve(load(PARAMS)).settings.threads))
