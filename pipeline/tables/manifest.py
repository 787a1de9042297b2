"""The manifest beside a table of signals: whose they are and of which examples, and how far a second reading of some
is from them. `training` refuses a table that is not what its manifest says."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from pipeline.tables import ids
from pipeline.tables.parquet import short_hash

FILE = "manifest.json"


class Again(BaseModel):
    """A second reading of some rows, in another order and, where the model is loaded here, at a wider `dtype`.

    `distance` is the total variation distance between the stored distribution of a place and that of the second
    reading, its mean over the places, `furthest` the largest; `target` is the largest difference of a target's
    log-probability, in nats.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    rows: int
    places: int
    dtype: str | None
    distance: float
    furthest: float
    target: float


class Manifest(BaseModel):
    """What a table of signals is made of; hashes are those of its rows, `examples` that of their ids."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    teacher: str
    dtype: str | None
    tokenizer: str | None
    template: str | None
    examples: str
    rows: int
    top_k: int
    store: str = "exact"
    temperatures: tuple[float, ...] = (1.0,)
    again: Again | None = None

    def write(self, folder: Path) -> None:
        (folder / FILE).write_text(self.model_dump_json(indent=1) + "\n", "utf-8")


def read(folder: Path) -> Manifest | None:
    """The manifest of a table; None if it has none."""
    file = folder / FILE
    return Manifest.model_validate_json(file.read_text("utf-8")) if file.exists() else None


def names_digest(names: Iterable[pa.Array]) -> str:
    """A hash of ids, in whatever order they come."""
    found = [ids.names(some) for some in names]
    total = short_hash()
    if found:
        total.update(np.sort(np.concatenate(found)).tobytes())
    return total.hexdigest()
