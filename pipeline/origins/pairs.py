"""Networks of pairs made here, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.backend import LOCAL
from pipeline.kinds.origin import Card, Origin, origin
from pipeline.model.folder import NETWORK
from pipeline.origins.points import fresh
from pipeline.tables.graphs import UNKNOWN


@origin(gives=LOCAL, backend=NETWORK, network="pairs.encoder")
def encoder(
    *,
    outcomes: Annotated[tuple[str, ...], Field(min_length=2)],
    numbers: tuple[PositiveInt, PositiveInt],
    width: PositiveInt = 16,
    seed: int,
) -> Origin:
    """An encoder of two vectors of so many `numbers`, whose head names one of the outcomes.

    Paper: PRORec 2025 (arXiv 2502.06269), the item encoder.
    Differs: nothing is read of the sequence that a thing stands in.
    """

    def fill(out: Path) -> Card:
        from pipeline.nets.pairs import Pair, PairConfig

        if len(set(outcomes)) < len(outcomes) or UNKNOWN in outcomes:
            raise Refused(
                f"outcomes: each needs a name of its own, and none is {UNKNOWN!r}, which says that it is unknown"
            )
        inputs = {"one": [numbers[0]], "other": [numbers[1]]}
        told = {"network": "pairs.encoder", "outcomes": sorted(outcomes), "inputs": inputs}
        return fresh(out, told, seed, Pair, PairConfig(numbers, width, num_labels=len(outcomes)))

    return fill
