"""A stage: `stillhouse <stage> <instance>`, which `dvc.yaml` calls."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.core.driver import run_instance
from pipeline.core.settings import limit_threads
from pipeline.core.stage import SECTION_OF
from pipeline.core.workspace import DATA, PARAMS
from pipeline.errors import Refused
from pipeline.plan.disk import codes, current
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve


def run_stage(stage: str, instance: str) -> None:
    """Run one instance, after checking that the plan on disk is what the parameters say now."""
    label = f"{stage}@{instance}"
    # Set by torchrun, and by others that start several processes of one command.
    if (started := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise Refused(
            f"{label} is one command, and {started} processes were started of it at once. Several devices train one "
            f"student where {PARAMS} says `run: {{ranks: {started}}}`; then run `dvc repro {label}`, which starts them."
        )
    plan = resolve(load(PARAMS, careful=False), label, codes(DATA))
    limit_threads(plan.settings.threads)
    if label not in plan.instances:
        names = ", ".join(i.name for i in plan.of(stage)) or "none"
        raise Refused(f"{PARAMS} has no {SECTION_OF[stage]}.{instance}; there are: {names}")
    chosen = plan.instances[label]
    current(chosen, DATA)
    # In a temporary experiment DVC_ROOT is the main workspace: its memo is shared.
    run_instance(chosen, plan.settings, DATA, Path(os.environ.get("DVC_ROOT", ".")))
