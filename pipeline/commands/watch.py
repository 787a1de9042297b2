"""Watch: that a file or folder of the user's has changed, told to `plan`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipeline.core.workspace import DATA, PARAMS, digests
from pipeline.plan.reading import load

ABOUT = "the hash of what an entry of `watch:` names; called by `dvc repro`"


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `watch`."""
    command.add_argument("name", help="the name of its entry in params.yaml")


def run(name: str) -> None:
    """Write `data/watched/<name>.json`, on which `plan` depends."""
    path, known = Path(load(PARAMS)["watch"][name]), digests()
    found = {"path": str(path), "digest": known.folder(path) if path.is_dir() else known.of(path)}
    out = DATA / "watched" / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
