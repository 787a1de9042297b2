"""Warm: a command, such as `dvc repro`, with a warm parent that its stages are forked from."""

from __future__ import annotations

import argparse
import sys

from pipeline.core.warm import run_beside
from pipeline.core.workspace import PARAMS
from pipeline.plan.resolve import load, resolve

ABOUT = "run a command, such as `dvc repro`, with the heavy imports paid once"


def arguments(command: argparse.ArgumentParser) -> None:
    """The command that follows `warm`."""
    command.add_argument("command", nargs=argparse.REMAINDER, help="the command with its arguments")


def run(command: list[str]) -> None:
    """Run a command with a warm parent beside it, and end as it ends."""
    sys.exit(run_beside(command, resolve(load(PARAMS)).settings.threads))
