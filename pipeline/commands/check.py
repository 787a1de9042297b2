"""Check: `params.yaml` whole, and nothing is written."""

from __future__ import annotations

import argparse

from pipeline.core.workspace import PARAMS
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve

ABOUT = "check params.yaml and write nothing"


def arguments(command: argparse.ArgumentParser) -> None:
    """Nothing may follow `check`."""


def run() -> None:
    """Check `params.yaml` and write nothing."""
    plan = resolve(load(PARAMS))
    print(f"params.yaml is valid: {len(plan.instances)} instances")
