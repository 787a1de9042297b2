"""Files outside the graph that a method reads: DVC does not watch them, so their digests are part of the parameters.

A method says which they are with its trait `files`, a function from its arguments to paths.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import computed_field

from pipeline import ids
from pipeline.stage import StageParams, Use
from pipeline.tables import folder_digest

if TYPE_CHECKING:
    from pipeline.plan import Plan


class WatchedParams(StageParams):
    """Parameters whose method may read the user's own files."""

    use: Use

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def digests(self) -> dict[str, str]:
        """Path -> what is in it, so that a changed file runs the stage again."""
        return {path: _digest(Path(path)) for path in self._files() if Path(path).exists()}

    def _files(self) -> list[str]:
        files = self.use.method.traits.get("files")
        return files(self.use.arguments) if files else []

    def check(self, plan: Plan) -> list[str]:
        return [
            f"path: {path} is missing; a path is relative to the folder of params.yaml"
            for path in self._files()
            if not Path(path).exists()
        ]


def _digest(path: Path) -> str:
    if path.is_dir():
        return folder_digest(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=ids.ID_BYTES)).hexdigest()
