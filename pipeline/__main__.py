"""The command line: `stillhouse <command>`, the same as `python -m pipeline <command>`.

`dvc.yaml` calls `plan` and `<stage> <instance>`; people call the rest.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import warm
from pipeline.errors import Refused
from pipeline.execution import die_with_parent, limit_threads

DATA = Path("data")
PARAMS = Path("params.yaml")


def run_stage(stage: str, instance: str) -> None:
    """Run one instance, after checking that the plan on disk is what the parameters say now."""
    from pipeline import plan
    from pipeline.stage import run_instance

    resolved = plan.resolve(plan.load(PARAMS))
    limit_threads(resolved.settings.threads)
    label = f"{stage}@{instance}"
    if label not in resolved.instances:
        names = ", ".join(i.name for i in resolved.of(stage)) or "none"
        raise Refused(f"{PARAMS} has no {plan.SECTION_OF[stage]}.{instance}; there are: {names}")
    chosen = resolved.instances[label]
    plan.current(chosen, DATA)
    # In a temporary experiment DVC_ROOT is the main workspace: its memo is shared.
    run_instance(chosen, resolved.settings, DATA, Path(os.environ.get("DVC_ROOT", ".")))


def run_plan() -> None:
    """Check `params.yaml` whole and write `data/plan/`."""
    from pipeline import plan

    resolved = plan.resolve(plan.load(PARAMS))
    plan.write(resolved, DATA)
    print(f"plan: {len(resolved.instances)} instances, all parameters valid")


def run_check() -> None:
    """Check `params.yaml` and write nothing."""
    from pipeline import plan

    resolved = plan.resolve(plan.load(PARAMS))
    print(f"params.yaml is valid: {len(resolved.instances)} instances")


def run_warm(command: list[str]) -> None:
    """Run a command, such as `dvc repro`, with a warm parent that its stages are forked from."""
    from pipeline import plan

    sys.exit(warm.run_beside(command, plan.resolve(plan.load(PARAMS)).settings.threads))


def parser() -> argparse.ArgumentParser:
    from pipeline.plan import STAGES

    top = argparse.ArgumentParser(prog="stillhouse", description=__doc__)
    commands = top.add_subparsers(dest="verb", required=True, metavar="command")

    def add(name: str, run: Callable[..., None], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    add("plan", run_plan, "check params.yaml and resolve it into data/plan/")
    add("check", run_check, "check params.yaml and write nothing")
    add("warm", run_warm, "run a command, such as `dvc repro`, with the heavy imports paid once").add_argument(
        "command", nargs=argparse.REMAINDER
    )
    for stage in STAGES:
        command = commands.add_parser(stage)
        if stage == "report":
            command.set_defaults(run=lambda: run_stage("report", "report"))
        else:
            command.add_argument("instance")
            command.set_defaults(run=lambda instance, stage=stage: run_stage(stage, instance))
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is one message and an exit code, without a traceback."""
    die_with_parent()
    given = list(sys.argv[1:] if argv is None else argv)
    delegated = warm.delegate(given)
    if delegated is not None:
        return delegated
    arguments = vars(parser().parse_args(given))
    verb, run = arguments.pop("verb"), arguments.pop("run")
    started = time.monotonic()
    try:
        run(**arguments)
    except Refused as error:
        print(f"{verb}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{verb}: stopped after {time.monotonic() - started:.0f} s; what was received is kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
