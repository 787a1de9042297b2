"""The pin of a workspace that `stillhouse new` made: which package its plan is of, since no code lies there.

`plan` depends on the pin as it does on the code in a clone. Another package plans nothing until `stillhouse upgrade`
has pinned it; what is made again then is what has another fingerprint.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from pipeline.core import identity, shipped
from pipeline.errors import Refused
from pipeline.tables import ids

PIN = "stillhouse.json"
MAP = "dvc.yaml"
# What a clone's map says -> what a workspace's does: it calls the tool that is installed, and has the pin for code.
REWRITTEN = {"python -m pipeline ": "stillhouse ", "[pipeline, ": f"[{PIN}, {identity.OWN}, "}


def write(root: Path) -> None:
    """Write the package's map, and the pin of the package."""
    drawn = (shipped.place() / MAP).read_text("utf-8")
    for ours, theirs in REWRITTEN.items():
        drawn = drawn.replace(ours, theirs)
    (root / MAP).write_text(drawn, "utf-8")
    (root / PIN).write_text(json.dumps(_installed() | {"map": ids.digest(drawn)}, indent=1) + "\n", "utf-8")


def read(root: Path) -> dict[str, str] | None:
    """The pin of a workspace; None of a clone."""
    return json.loads((root / PIN).read_text("utf-8")) if (root / PIN).exists() else None


def told(root: Path) -> list[str]:
    """That a workspace is pinned to another package than this, if it is so."""
    pinned, now = read(root), _installed()
    if pinned is None or now.items() <= pinned.items():
        return []
    other = "" if now["version"] != pinned["version"] else ", of other code or on another Python"
    return [
        f"{PIN} pins this workspace to stillhouse {pinned['version']}, and {now['version']} is installed{other}: "
        f"`stillhouse status` says what would be made again, `stillhouse upgrade` pins what is installed"
    ]


def hold(root: Path) -> None:
    """Refuse to plan by another package than the one that is pinned."""
    for text in told(root):
        raise Refused(text)


def own_map(root: Path) -> bool:
    """Whether somebody has edited a workspace's map since it was written."""
    pinned = read(root)
    return pinned is not None and pinned["map"] != ids.digest((root / MAP).read_text("utf-8"))


def _installed() -> dict[str, str]:
    return {"version": version("stillhouse"), "code": identity.package()}
