"""Where things lie: the folder of all tables, the parameters, the memo."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.tables.digests import Digests

TABLE_FOLDERS = (
    "prompts", "drops", "responses", "scores", "quality", "gates", "gaps", "selections", "examples", "signals",
    "models", "evals", "exports",
)  # fmt: skip

# What no instance makes and DVC always looks into; `watch:` in params.yaml names more.
WATCHED = ("data/embedded", "data/own", "data/labels")

# What is told of a file of the user's that is not there.
ABSENT = "is missing; a path is relative to the folder of params.yaml"

ROOT = Path()
DATA = ROOT / "data"
PARAMS = ROOT / "params.yaml"


def digests(data: Path = DATA) -> Digests:
    """The remembered hashes of large files."""
    return Digests(data / ".cache" / "digests.json")


def memo_root() -> Path:
    """Where the memo lies: a temporary experiment shares the one of its workspace."""
    return Path(os.environ.get("DVC_ROOT", ROOT))


def memo_folder() -> Path:
    """The folder of the memo."""
    return memo_root() / "data" / ".memo"


def unseen(path: str, roots: Sequence[str]) -> str | None:
    """Why DVC would not see that a file or folder of the user's changes: it is in none of these, or behind a link."""
    if not Path(path).exists():
        return f"{path} {ABSENT}"
    place = _straight(path)
    inside = [root for root in map(_straight, roots) if place.is_relative_to(root)]
    add = f"`watch: {{{re.sub('[^a-z0-9_]', '_', place.stem.lower()).lstrip('_0123456789') or 'own'}: {path}}}`"
    if not inside:
        return f"nothing watches {path}, so a change in it would go unseen. Move it to data/own/, or add {add}"
    root = max(inside, key=lambda inside: len(inside.parts))
    below = [p for p in (place, *place.parents) if p.is_relative_to(root) and p != root]
    within = [Path(top) / name for top, names, _ in os.walk(place) for name in names]
    for folder in (*below, *within):
        if folder.is_symlink() and folder.is_dir():
            mend = f"Add {add}" if folder in below else "Put the folder itself there"
            return f"{os.path.relpath(folder)} is a link to a folder, and DVC does not follow it. {mend}"
    return None


def _straight(path: str) -> Path:
    """A path from the root, without following a link."""
    return Path(os.path.normpath(Path(path).absolute()))
