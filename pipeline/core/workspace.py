"""Where things lie: the folder of all tables, the parameters, the memo."""

from __future__ import annotations

import os
from pathlib import Path

TABLE_FOLDERS = (
    "prompts", "drops", "responses", "scores", "quality", "gates", "gaps", "selections", "examples", "signals",
    "models", "evals", "exports",
)  # fmt: skip

ROOT = Path()
DATA = ROOT / "data"
PARAMS = ROOT / "params.yaml"


def memo_root() -> Path:
    """Where the memo lies: a temporary experiment shares the one of its workspace."""
    return Path(os.environ.get("DVC_ROOT", ROOT))


def memo_folder() -> Path:
    """The folder of the memo."""
    return memo_root() / "data" / ".memo"
