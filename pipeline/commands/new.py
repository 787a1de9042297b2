"""New: a workspace outside a clone, which uses the package that is installed."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
from pathlib import Path

from pipeline.commands.screen import show
from pipeline.core import shipped
from pipeline.core.identity import MINE, OWN
from pipeline.core.methods import KINDS
from pipeline.core.workspace import PARAMS
from pipeline.errors import Refused
from pipeline.plan import pin
from pipeline.plan.faults import PlanError
from pipeline.plan.reading import load
from pipeline.plan.reading import recipe as named
from pipeline.plan.resolve import resolve

ABOUT = "make a workspace that uses the installed package"
MORE = "It has git, DVC, the map, a params.yaml and a place for methods of your own; no code lies in it."
OWN_METHODS = f"""# Methods of your own

`{OWN}/<kind>s/{MINE}.py` has them, a function each, and `use: {MINE}.<function>` in `params.yaml` names them.
An edit re-runs what uses them. `stillhouse methods --check {MINE}.<function>` says which law of its kind one breaks.
The folders:

"""


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `new`."""
    command.add_argument("folder", type=Path, metavar="DIR", help="a folder that is not there, or empty")
    text = "what params.yaml begins as, such as own_data, or a file; the default run unless told"
    command.add_argument("--recipe", type=Path, default=shipped.place() / PARAMS, help=text)


def run(folder: Path, recipe: Path) -> None:
    """Make the workspace whole beside its place, and put it there by one rename."""
    found = named(recipe)
    load(found)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise Refused(f"{folder} is there and not empty; name a folder that is not")
    fresh = folder.absolute().with_name(f".{folder.absolute().name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        bring(fresh)
        shutil.copyfile(found, fresh / PARAMS)
        (fresh / OWN).mkdir()
        places = "".join(f"- `{OWN}/{room}/`\n" for room in KINDS.values())
        (fresh / OWN / "README.md").write_text(OWN_METHODS + places, "utf-8")
        pin.write(fresh)
        for command in (
            ["init", "--quiet"],
            ["add", "--all"],
            ["-c", "user.name=stillhouse", "-c", "user.email=stillhouse@localhost", "commit", "--quiet", "-m", "new"],
        ):
            subprocess.run(["git", *command], cwd=fresh, check=True)
        fresh.replace(folder.absolute())
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    with contextlib.chdir(folder):
        try:
            told = f"{len(resolve(load(PARAMS)).instances)} instances. There, `stillhouse doctor` and `dvc repro`"
        except PlanError as error:
            told = f"params.yaml wants an edit first, and `stillhouse check` then:\n{error}"
    show([f"{folder} is a workspace of stillhouse {pin.version('stillhouse')}: {told}"])


def bring(root: Path) -> None:
    """Copy what the package ships, but for recipes, the map, and what is there and the user's."""
    for file in shipped.files(shipped.place()):
        if file.parts[0] != "recipes" and file not in (PARAMS, Path(pin.MAP)):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(shipped.place() / file, root / file)
