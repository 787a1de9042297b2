"""The command line: every file here that says what it is about is a command, and so is every stage.

A command is a file with a line `ABOUT = "..."` (and `MORE`, for its own help page), `arguments(command)`, which adds
what may follow it, and `run`, which is given that. The folder is the list; only the command that is called is imported.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import re
from pathlib import Path

from pipeline.commands.stage import run_stage
from pipeline.core.stage import ALONE, STAGES

HERE = Path(__file__).parent
ABOUT_ALL = "From prompts to an evaluated student. `dvc repro` runs the graph; these commands check, ask and explain."


def commands() -> dict[str, str]:
    """Name of a command for people -> what it is about, read from the files without importing them."""
    said = {file.stem: re.search(r'^ABOUT = "(.+)"$', file.read_text("utf-8"), re.M) for file in HERE.glob("*.py")}
    return {name: about[1] for name, about in sorted(said.items()) if about is not None}


def parser(*verbs: str) -> argparse.ArgumentParser:
    """All commands: those for people, then one for every stage, which `dvc.yaml` calls.

    Only those that are named in `verbs` take their arguments: the others are listed, and not imported.
    """
    top = argparse.ArgumentParser(prog="stillhouse", description=ABOUT_ALL)
    listed = top.add_subparsers(dest="verb", required=True, metavar="command")
    for name, about in commands().items():
        command = listed.add_parser(name, help=about, description=_sentence(about))
        if name in verbs:
            module = importlib.import_module(f"pipeline.commands.{name}")
            command.description = f"{_sentence(about)} {getattr(module, 'MORE', '')}".rstrip()
            module.arguments(command)
            command.set_defaults(run=module.run)
    for stage in STAGES:
        about = _about(stage)
        command = listed.add_parser(stage, help=about, description=f"{_sentence(about)} Called by `dvc repro`.")
        command.set_defaults(run=functools.partial(run_stage, stage))
        if stage == ALONE:
            command.set_defaults(instance=ALONE)
        else:
            command.add_argument("instance", help="the name of its entry in params.yaml")
    return top


def _sentence(about: str) -> str:
    return f"{about[0].upper()}{about[1:]}."


def _about(stage: str) -> str:
    """What a stage's file says it does, read without importing it."""
    text = (HERE.parent / "stages" / f"{stage}.py").read_text("utf-8")
    return text.split('"""')[1].split("\n")[0].partition(": ")[2].partition(".  ")[0].replace("%", "%%")
