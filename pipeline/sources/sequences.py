"""Sequences of letters, made by a procedure."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.source import GivenRow, Rows, source
from pipeline.tables import ids

BASES = "acgt"
Share = Annotated[float, Field(ge=0, le=1)]


@source(verifiers=("text.exact",))
def dna(
    *,
    rows: PositiveInt,
    seed: int,
    length: Annotated[int, Field(ge=6, le=500)] = 36,
    motifs: Annotated[int, Field(ge=2, le=64)] = 4,
    motif: Annotated[int, Field(ge=3)] = 9,
    copies: PositiveInt = 2,
    step: PositiveInt = 3,
    mutated: Share = 0.1,
    slip: Share = 0.0,
) -> Rows:
    """DNA by a Markov chain, in which `copies` of one of the `motifs` stand, each letter of them changed with the
    probability `mutated`; the class is which motif it is.

    Motifs of `motif` letters and the chain, in which the next letter hangs on the two before it, are drawn once for all
    seeds. A copy begins at a multiple of `step`, as a codon does. The solution of a share of `slip` is another motif.

    Paper: none; the task was made for this demonstration.
    Differs: nothing to differ from.
    """
    if copies * (motif + step) > length:
        raise Refused(f"sequences.dna: {copies} copies of {motif} letters do not fit {length}; ask for more `length`")
    laws = ids.generator(0, "sequences.dna", motifs, motif)
    planted = laws.integers(4, size=(motifs, motif))
    chain = laws.dirichlet(np.full(4, 0.7), size=(4, 4)).cumsum(2)
    names = [f"motif {i}" for i in range(motifs)]
    for number in range(rows):
        dice = ids.generator(seed, "sequences.dna", number)
        letters, which = list(dice.integers(4, size=2)), int(dice.integers(motifs))
        for chance in dice.random(length - 2):
            letters.append(int(np.searchsorted(chain[letters[-2], letters[-1]], chance).clip(0, 3)))
        free = length // copies // step * step
        for copy in range(copies):
            start = copy * free + step * int(dice.integers((free - motif) // step + 1))
            changed = np.where(dice.random(motif) < mutated, dice.integers(4, size=motif), planted[which])
            letters[start : start + motif] = changed.tolist()
        others = [name for i, name in enumerate(names) if i != which]
        wrong = ids.draw(seed, "slip", number) < slip
        yield GivenRow(
            f"sequences.dna seed {seed} row {number}",
            {
                "messages": [{"role": "user", "content": "".join(BASES[letter] for letter in letters)}],
                "domain": "dna",
                "verifier": "text.exact",
                "reference": names[which],
                "solution": others[int(len(others) * ids.draw(seed, "wrong", number))] if wrong else names[which],
            },
        )
